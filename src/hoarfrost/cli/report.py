"""``hoarfrost report``: the page of a run, from its folder alone."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import command


@command(verbs.report)
def report(run: Annotated[Path, Parameter(name="RUN")], /) -> None:
    """Write the page, and say where."""
    print(f"Report: {verbs.report(run)}")
