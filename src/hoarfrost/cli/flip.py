"""``hoarfrost flip``: the other hand of a map."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import Output, command
from hoarfrost.evaluation.options import FlipOptions


@command(verbs.flip, FlipOptions)
def flip(map_path: Annotated[Path, Parameter(name="MAP")], /, *, output: Output, **options: Any) -> None:
    """Flip, and say what was written."""
    done = verbs.flip(map_path, output, **options)
    print(f"Wrote the other hand to {done.map_path}")
    if done.poses_path is not None:
        print(f"Wrote {done.n_poses:,} particles with poses for it to {done.poses_path}")
