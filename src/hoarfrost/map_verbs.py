"""The verbs for maps, with their documentation; what they need is loaded when one is called: see `verbs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hoarfrost.evaluation.compare import Comparison
    from hoarfrost.evaluation.evaluate import EvaluationReport
    from hoarfrost.evaluation.flip import Flipped
    from hoarfrost.evaluation.symmetrise import Symmetrised


def evaluate(
    map_path: str | Path,
    reference: str | Path,
    *,
    poses: str | Path | None = None,
    true_poses: str | Path | None = None,
    symmetry: str = "C1",
    mask_diameter_A: float | None = None,
    pixel_size_A: float | None = None,
) -> EvaluationReport:
    """Compare a map with a reference: align over rotations, both hands and shifts, then tell FSC and correlation.

    The maps may differ in box and voxel size; the FSC is on the grid of the reference.

    Parameters
    ----------
    map_path
        MRC map to judge.
    reference
        MRC map to judge it by, or an atomic model (.pdb, .cif, either with .gz), of which a map is made.
    poses
        particles.star of the run, to judge its poses as well; needs the true poses.
    true_poses
        STAR file with the poses to judge them by: of the same particles, in the same order.
    symmetry
        Symmetry that the run imposed, like D7: poses that show such a map alike are then one. It goes with the poses.
    mask_diameter_A
        Diameter of a soft spherical mask put on both maps, in Å. None unless given.
    pixel_size_A
        Pixel size of a map whose header tells none, in Å.

    Raises
    ------
    UsageError, DataError
        Only one of the files of poses, a symmetry that is none or has no poses, a mask without size; a file that
        cannot be used.
    """
    from hoarfrost.evaluation.evaluate import evaluate as run

    return run(
        map_path,
        reference,
        poses=poses,
        true_poses=true_poses,
        symmetry=symmetry,
        mask_diameter_A=mask_diameter_A,
        pixel_size_A=pixel_size_A,
    )


def compare(
    first: str | Path,
    second: str | Path,
    *,
    mask_diameter_A: float | None = None,
    pixel_size_A: float | None = None,
) -> Comparison:
    """Compare two maps: align one to the other in each hand, then tell correlations, FSC curves and resolutions.

    They may differ in box and voxel size. Use evaluate where the second is known to be right, and for poses.

    Parameters
    ----------
    first
        MRC map to align.
    second
        MRC map to align it to.
    mask_diameter_A
        Diameter of a soft spherical mask put on both maps, in Å. None unless given.
    pixel_size_A
        Pixel size of a map whose header tells none, in Å.

    Raises
    ------
    UsageError, DataError
        A mask without size; a file that cannot be used.
    """
    from hoarfrost.evaluation.compare import compare as run

    return run(first, second, mask_diameter_A=mask_diameter_A, pixel_size_A=pixel_size_A)


def flip(
    map_path: str | Path,
    output: str | Path,
    *,
    particles: str | Path | None = None,
    datadir: str | Path | None = None,
    pixel_size_A: float | None = None,
    overwrite: bool = False,
) -> Flipped:
    """Mirror a map to its other hand, and the poses of its particles with it.

    The map is turned inside out about its middle, which leaves axes of symmetry where they are.

    Parameters
    ----------
    map_path
        MRC map to mirror.
    output
        MRC map to write.
    particles
        Particle file with the poses that belong to the map, such as particles.star of a run. A STAR file with the
        poses of the other hand is written beside the output, under its name.
    datadir
        Folder that the image names of the particles are relative to.
    pixel_size_A
        Pixel size of a map whose header tells none, in Å.
    overwrite
        Replace the output if it exists.

    Raises
    ------
    UsageError, DataError
        An output that exists; a file that cannot be used.
    """
    from hoarfrost.evaluation.flip import flip as run

    return run(map_path, output, particles=particles, datadir=datadir, pixel_size_A=pixel_size_A, overwrite=overwrite)


def symmetrise(
    map_path: str | Path,
    symmetry: str,
    output: str | Path,
    *,
    aligned: bool = False,
    max_resolution_A: float | None = None,
    pixel_size_A: float | None = None,
    overwrite: bool = False,
) -> Symmetrised:
    """Average a map over a point group, about the axes that are found in it, and say how well it agreed before.

    The map is moved so that its axes lie as docs/conventions.md says: the main axis of Cn and Dn along z, a two-fold
    axis of Dn along x.

    Parameters
    ----------
    map_path
        MRC map to average, protein positive.
    symmetry
        Point group: Cn or Dn with any n (C4, D7), T, O or I.
    output
        MRC map to write.
    aligned
        The axes of the map lie there already: do not look for them.
    max_resolution_A
        Finest detail by which axes are placed, in Å. A twentieth of the box unless given.
    pixel_size_A
        Pixel size of a map whose header tells none, in Å.
    overwrite
        Replace the output if it exists.

    Raises
    ------
    UsageError, DataError
        Another group, or an output that exists; a map that cannot be used.
    """
    from hoarfrost.evaluation.symmetrise import symmetrise as run

    return run(
        map_path,
        symmetry,
        output,
        aligned=aligned,
        max_resolution_A=max_resolution_A,
        pixel_size_A=pixel_size_A,
        overwrite=overwrite,
    )
