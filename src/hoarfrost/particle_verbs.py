"""The verbs for particle files, which `hoarfrost.verbs` offers with the others: no map is made or read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hoarfrost.examples.options import ExampleOptions
from hoarfrost.io.convert_options import ConvertOptions
from hoarfrost.options import takes
from hoarfrost.selection.options import SelectOptions

if TYPE_CHECKING:
    from hoarfrost.io.convert import Conversion
    from hoarfrost.selection.select import Selection


@takes(ExampleOptions)
def example(output: str | Path, options: ExampleOptions) -> Path:
    """Write the example particles, 808 real ones of β-galactosidase (EMPIAR-10017), into a new folder.

    They come with the package: nothing is fetched. The result is the path of their STAR file.

    Parameters
    ----------
    output
        Folder to make: particles.star, its two stacks, and README.md with their source.
    options
        {options}

    Raises
    ------
    UsageError
        An output that exists, or cannot be written.
    """
    from hoarfrost.examples.example import example as write

    return write(output, options)


@takes(SelectOptions)
def select(particles: str | Path, output: str | Path, options: SelectOptions) -> Selection:
    """Choose particles by junk probability, class, pose, defocus, micrograph or at random, and shrink their images.

    Particles meet all criteria that are given. Every column is kept; images stay where they are, unless `box` shrinks
    them. The result tells how many each criterion left.

    Parameters
    ----------
    particles
        Folder of a run, whose particles.star is then meant, or a particle file: a RELION STAR file (3.0, 3.1, 4 or 5),
        or cryoSPARC's .cs file.
    output
        The file to write, whose name tells the format: .star (RELION 3.1) or .cs. With a .cs file comes a .csg file by
        which cryoSPARC imports it.
    options
        {options}

    Raises
    ------
    UsageError, DataError
        Options that make no sense, no criterion, or an output that exists; a file that cannot be used, a criterion's
        column that is missing, or no particle left.
    """
    from hoarfrost.selection.select import select as run

    return run(particles, output, options)


@takes(ConvertOptions)
def convert(inputs: str | Path | Sequence[str | Path], output: str | Path, options: ConvertOptions) -> Conversion:
    """Convert a particle file: RELION's .star to cryoSPARC's .cs and back, a .par of FREALIGN or cisTEM to either.

    Poses, CTF parameters and optics groups are kept, and what is not kept is told. Images are not copied.

    Parameters
    ----------
    inputs
        The file to convert, or a .cs file and its pass-through .cs file.
    output
        The file to write, whose name tells the format. With a .cs file comes a .csg file by which cryoSPARC imports it.
    options
        {options}

    Raises
    ------
    UsageError, DataError
        Files that do not go together, or an output that exists; an input that cannot be used.
    """
    from hoarfrost.io.convert import convert as run
    from hoarfrost.io.frealign import GivenOptics

    o = options
    return run(
        [inputs] if isinstance(inputs, str | Path) else inputs,
        output,
        stack=o.stack,
        given=GivenOptics(o.pixel_size_A, o.voltage_kV, o.cs_mm, o.amplitude_contrast),
        datadir=o.datadir,
        overwrite=o.overwrite,
    )
