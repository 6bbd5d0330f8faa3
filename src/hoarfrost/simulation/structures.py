"""The structures that particles are images of: maps and atomic models, brought to one box and one pixel size.

The densities of atomic models have one unit, so a set of these keeps its relative strengths. Maps have units of their
own: where there is a map among several structures, each is divided by the deviation of its projections,

    V → V / √( mean over orientations of var(P_R V over the box) )          200 orientations, evenly spread, no CTF.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from hoarfrost.errors import DataError, UsageError
from hoarfrost.io.atomic_model import is_atomic_model, read_atomic_model
from hoarfrost.io.mrc import read_volume
from hoarfrost.maths.fourier import centred_window, fourier_resize
from hoarfrost.maths.rotations import rotation_grid
from hoarfrost.simulation.image_formation import ImageFormation
from hoarfrost.simulation.options import SMALLEST_BOX

SAME_LENGTH = 0.005  # lengths this close, relatively, count as one
LARGEST_LOSS = 0.05  # of the squares of a map, outside the box that it is cropped to
PADDINGS = 64
ORIENTATIONS = 200
ORIENTATIONS_AT_ONCE = 10


def read_structures(
    paths: Sequence[str | Path], box: int | None, pixel_size_A: float | None
) -> tuple[list[Tensor], float]:
    """All structures float32 (box, box, box) and their pixel size in Å.

    Without atomic models, the first map decides: `box` voxels span its length, and `pixel_size_A` replaces the voxel
    size in the headers. With one, `box` and `pixel_size_A` must be given, and are those of the images.

    Raises UsageError where they are missing, DataError for a file that cannot be used or does not fit.
    """
    if not paths:
        raise UsageError("give a map or an atomic model, or several")
    models = [path for path in paths if is_atomic_model(path)]
    header_A = None if models else pixel_size_A
    if models:
        if box is None or pixel_size_A is None:
            raise UsageError(f"{models[0]} is an atomic model, so give the box and the pixel size of the images")
    else:
        first, pixel_size_A = _read_first_map(paths[0], box, header_A)
        box = first.shape[0]
    assert box is not None
    assert pixel_size_A is not None
    volumes = []
    for number, path in enumerate(paths):
        if is_atomic_model(path):
            volumes.append(torch.from_numpy(read_atomic_model(path, box, pixel_size_A)))
        else:
            volumes.append(first if not (models or number) else _read_fitted_map(path, box, pixel_size_A, header_A))
    if len(volumes) > 1 and len(models) < len(volumes):
        volumes = [volume / projection_deviation(volume) for volume in volumes]
    return volumes, pixel_size_A


def projection_deviation(volume: Tensor) -> float:
    """Root of the mean variance of a volume's projections over the box, without CTF."""
    formation = ImageFormation(volume, 1.0)
    rotations = rotation_grid(ORIENTATIONS)
    variances = [formation.variance(formation.slices(some)) for some in torch.split(rotations, ORIENTATIONS_AT_ONCE)]
    return float(torch.cat(variances).mean().sqrt())


def _read_first_map(path: str | Path, box: int | None, pixel_size_A: float | None) -> tuple[Tensor, float]:
    """The map on `box` voxels over its own length, and its pixel size in Å."""
    values, map_pixel_A = _read_map(path, pixel_size_A)
    n = values.shape[0]
    if box is None and (n < SMALLEST_BOX or n % 2):
        raise DataError(path, expected=f"an even box of {SMALLEST_BOX} voxels or more", found=f"{n}", hint="give a box")
    box = n if box is None else box
    # Also where the box stays: images hold nothing beyond Nyquist, nor must the truth.
    return fourier_resize(values, box), n * map_pixel_A / box


def _read_fitted_map(path: str | Path, box: int, pixel_size_A: float, header_A: float | None) -> Tensor:
    """The map on `box` voxels of `pixel_size_A`, by cropping or padding where its length is another."""
    values, map_pixel_A = _read_map(path, header_A)
    n = values.shape[0]
    if abs(n * map_pixel_A / (box * pixel_size_A) - 1) <= SAME_LENGTH:
        return fourier_resize(values, box)
    # Beyond its faces a map goes on as they are, which counts as zero.
    values = values - _face_level(values)
    padded, resampled = min(
        ((size, max(2, round(size * map_pixel_A / pixel_size_A))) for size in range(n, n + PADDINGS)),
        key=lambda sizes: abs(sizes[0] * map_pixel_A / sizes[1] / pixel_size_A - 1),
    )
    volume = fourier_resize(centred_window(values, padded), resampled)
    inside = centred_window(volume, box)
    lost = 1 - float(inside.double().square().sum() / volume.double().square().sum())
    if lost > LARGEST_LOSS:
        raise DataError(
            path,
            expected=f"a map that fits in {box} voxels of {pixel_size_A:.4g} Å",
            found=f"{lost:.0%} of it outside ({n} voxels of {map_pixel_A:.4g} Å)",
            hint="give a larger box, or a map without noise around the molecule",
        )
    return fourier_resize(inside, box)


def _read_map(path: str | Path, pixel_size_A: float | None) -> tuple[Tensor, float]:
    values, map_pixel_A = read_volume(path, pixel_size_A)
    if values.max() == values.min():
        raise DataError(path, expected="a map with contrast", found="one value in every voxel")
    return torch.from_numpy(values), map_pixel_A


def _face_level(values: Tensor) -> float:
    """Mean of the voxels on the six faces of a cube, an edge counted once for each face."""
    return float(torch.stack([values.select(axis, end).mean() for axis in range(3) for end in (0, -1)]).mean())
