"""What a finished study says on the terminal."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hoarfrost.cli.terminal import optional
from hoarfrost.errors import NotConvergedError


def show_study(output: Path, methods: Mapping[str, Any]) -> None:
    """Write the report of the study in a folder, and print a line for each of the `methods` of its summary.

    Raises NotConvergedError where a method failed from all its starts.
    """
    for line in _lines(methods):
        print(line)
    with optional("its report"):
        from hoarfrost.reporting.study_page import write_study_report

        print(f"Report: {write_study_report(output)}")
    failed = [method["title"] for method in methods.values() if len(method["failures"]) == method["starts"]]
    if failed:
        raise NotConvergedError(
            f"{len(failed)} of {len(methods)} methods failed and have no result: {', '.join(failed)}"
        )


def _lines(methods: Mapping[str, Any]) -> Iterator[str]:
    width = max(len(method["title"]) for method in methods.values())
    for method in methods.values():
        title, failures = f"{method['title']:<{width}}", method["failures"]
        if len(failures) == method["starts"]:
            yield f"{title}  {failures[0]}"
            continue
        fsc = "" if method["mean_fsc"] is None else f"   mean FSC {method['mean_fsc']:.3f}"
        of_starts = f"   {len(failures)} of {method['starts']} starts failed" if failures else ""
        yield f"{title}  held-out NLL {method['final_nll']:.2f}{fsc}{of_starts}"
