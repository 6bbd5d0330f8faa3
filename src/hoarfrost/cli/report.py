"""``hoarfrost report``: the page of a run, from its folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def report(run: Annotated[Path, Parameter(name="RUN")], /) -> None:
    """Write report.html into the folder of a run: one that is going on, was stopped or has ended.

    `reconstruct` writes the same page as it goes and at its end. It is one file that needs no network.

    Parameters
    ----------
    run
        Folder that reconstruct wrote, or is writing.
    """
    from hoarfrost.reporting.report import report as write

    print(f"Report: {write(run)}")
