"""``hoarfrost select``: some of the particles, and smaller images of them."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import Output, command
from hoarfrost.selection.options import SelectOptions


@command(verbs.select, SelectOptions)
def select(particles: Annotated[Path, Parameter(name="INPUT")], /, *, output: Output, **options: Any) -> None:
    """Select, and say how many were left by each criterion."""
    done = verbs.select(particles, output, **options)
    for line in (*done.lines(), *done.notes):
        print(line)
    print(f"Wrote {done.n:,} particles to {' and '.join(str(file) for file in done.files)}")
