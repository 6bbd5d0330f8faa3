"""``hoarfrost bench``: how fast this machine computes likelihoods, against its own matrix products."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import command
from hoarfrost.options import DeviceName


@command(verbs.bench)
def bench(
    *,
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="JSON file to write the results to.")
    ] = None,
    device: DeviceName = "auto",
    threads: int | None = None,
) -> None:
    """Measure, and print a table."""
    from rich.console import Console

    from hoarfrost.io.atomic import write_text_atomically

    console = Console()
    with console.status("measuring") as status:
        results = verbs.bench(device=device, threads=threads, progress=status.update)
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
