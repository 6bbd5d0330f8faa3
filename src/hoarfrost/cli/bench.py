"""``hoarfrost bench``: how fast this machine computes likelihoods, against its own matrix products."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter


def bench(
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
) -> None:
    """Measure the speed of the exact likelihood at the published size: 128 px, 98,872 orientations, 46,105 images.

    Parameters
    ----------
    output
        JSON file to write the results to.
    device
        Where to compute; auto takes the GPU if there is one.
    threads
        CPU threads to use. All cores unless given.
    """
    from rich.console import Console

    from hoarfrost.io.atomic import write_text_atomically
    from hoarfrost.study.speed import PUBLISHED, measure

    console = Console()
    with console.status("measuring") as status:
        results = measure(PUBLISHED, device=device, threads=threads, progress=status.update)
    if output is not None:
        write_text_atomically(output, json.dumps(results, indent=2) + "\n")
    _show(console, results)


def _show(console: Any, results: dict[str, Any]) -> None:
    from rich.table import Table

    machine = results["machine"]
    table = Table("", "seconds", "GFlop/s", "of sgemm", "")
    for entry in results["measurements"]:
        rate, share = entry["gflops"], entry["share_of_sgemm"]
        table.add_row(
            entry["name"],
            f"{entry['seconds']:.4g}",
            "" if rate is None else f"{rate:.0f}",
            "" if share is None else f"{share:.0%}",
            entry["note"],
        )
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, {machine['device']}, "
        f"torch {machine['torch']}"
    )
    console.print(table)
    console.print(f"Peak memory {results['peak_memory_MB']:.0f} MB. The measurements took {results['seconds']:.0f} s.")
