"""``hoarfrost convert``: particle files between RELION, cryoSPARC, FREALIGN and cisTEM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hoarfrost.errors import UsageError


def convert(
    files: Annotated[list[Path], Parameter(name="FILES")],
    /,
    *,
    stack: Path | None = None,
    pixel_size_A: Annotated[float | None, Parameter(name="--pixel-size")] = None,
    voltage_kV: Annotated[float | None, Parameter(name="--voltage")] = None,
    cs_mm: Annotated[float | None, Parameter(name="--cs")] = None,
    amplitude_contrast: float | None = None,
    datadir: Path | None = None,
    overwrite: Annotated[bool, Parameter(show_default=False)] = False,
) -> None:
    """Convert a particle file: RELION's .star to cryoSPARC's .cs and back, a .par of FREALIGN or cisTEM to either.

    Poses, CTF parameters and optics groups are kept, and what is not kept is told. Images are not copied.

    Parameters
    ----------
    files
        The file to convert, and last the file to write: particles.cs particles.star. A .cs file may be followed by its
        pass-through .cs file.
    stack
        Stack of images (.mrc or .mrcs) that a .par file belongs to.
    pixel_size_A
        Pixel size of the stack of a .par file, in Å, if its header does not tell it.
    voltage_kV
        Acceleration voltage, in kV, which a .par file does not tell.
    cs_mm
        Spherical aberration, in mm, which a .par file does not tell.
    amplitude_contrast
        Part of the contrast that is amplitude contrast, from 0 to 1, which a .par file does not tell.
    datadir
        Folder that the image names are relative to, such as the project folder. By default, that of the file, or one
        above it.
    overwrite
        Replace the output if it exists.
    """
    if len(files) < 2:
        raise UsageError("give the file to convert and the file to write, like particles.cs particles.star")
    from hoarfrost.io.convert import convert as run
    from hoarfrost.io.frealign import GivenOptics

    done = run(
        files[:-1],
        files[-1],
        stack=stack,
        given=GivenOptics(pixel_size_A, voltage_kV, cs_mm, amplitude_contrast),
        datadir=datadir,
        overwrite=overwrite,
    )
    for note in done.notes:
        print(note)
    poses = "with poses" if done.has_poses else "without poses"
    print(f"Wrote {done.n:,} particles {poses} to {' and '.join(str(file) for file in done.files)}")
