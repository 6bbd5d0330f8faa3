"""``hoarfrost flip``: the other hand of a map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def flip(
    volume: Annotated[Path, Parameter(name="MAP")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    particles: Path | None = None,
    datadir: Path | None = None,
    overwrite: Annotated[bool, Parameter(show_default=False)] = False,
) -> None:
    """Mirror a map to its other hand, and the poses of its particles with it.

    The map is turned inside out about its middle, which leaves axes of symmetry where they are.

    Parameters
    ----------
    volume
        MRC map to mirror.
    output
        MRC map to write.
    particles
        Particle file with the poses that belong to the map, such as particles.star of a run: a STAR file with those of
        the other hand is written beside the output, under its name.
    datadir
        Folder that the image names of the particles are relative to.
    overwrite
        Replace the output if it exists.
    """
    from hoarfrost.evaluation.flip import flip as run

    done = run(volume, output, particles=particles, datadir=datadir, overwrite=overwrite)
    print(f"Wrote the other hand to {done.map_path}")
    if done.poses_path is not None:
        print(f"Wrote {done.n_poses:,} particles with poses for it to {done.poses_path}")
