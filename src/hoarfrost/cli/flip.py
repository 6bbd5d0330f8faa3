"""``hoarfrost flip``: the other hand of a map."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import Flag, Output, command


@command(verbs.flip)
def flip(
    map_path: Annotated[Path, Parameter(name="MAP")],
    /,
    *,
    output: Output,
    particles: Path | None = None,
    datadir: Path | None = None,
    pixel_size_A: Annotated[float | None, Parameter(name="--pixel-size")] = None,
    overwrite: Flag = False,
) -> None:
    """Flip, and say what was written."""
    done = verbs.flip(
        map_path, output, particles=particles, datadir=datadir, pixel_size_A=pixel_size_A, overwrite=overwrite
    )
    print(f"Wrote the other hand to {done.map_path}")
    if done.poses_path is not None:
        print(f"Wrote {done.n_poses:,} particles with poses for it to {done.poses_path}")
