"""A shaded isosurface of a map, as an image: orthographic rays to the first crossing, lit along the gradient there."""

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from hoarfrost.maths.rotations import rotations_from_vectors

Array = npt.NDArray[np.float64]

PIXELS = 160
VOXELS_PER_PIXEL = 0.6
LIGHT = np.array([-0.45, 0.55, 0.70])  # towards the light: x right, y up, z to the viewer
AMBIENT = 0.25
# From where maps are shown: a rotation (3, 3), x_seen = R x_volume.
VIEW: Array = rotations_from_vectors(torch.tensor([[0.9, 0.5, 0.0]], dtype=torch.float64))[0].numpy()
# The part of the box that a surface encloses, where no true map tells it.
DEFAULT_ENCLOSED = 0.04


def level_enclosing(volume: npt.NDArray[np.floating], enclosed: float) -> float:
    """The level that a part `enclosed` of the voxels exceeds."""
    return float(np.quantile(volume, 1 - enclosed))


def render_isosurface(
    volume: npt.NDArray[np.floating],
    rotation: Array | None = None,
    enclosed: float = DEFAULT_ENCLOSED,
    pixels: int = PIXELS,
) -> Array:
    """Brightness (pixels, pixels) of the surface around a part `enclosed` of the box, NaN where a ray meets none.

    The viewer looks down the z axis after `rotation` (3, 3), x_seen = R x_volume; rows go up in y. The map is read
    between voxels with cubic splines.
    """
    turn = np.eye(3) if rotation is None else rotation
    level = level_enclosing(volume, enclosed)
    n = volume.shape[0]
    across = np.linspace(-0.5, 0.5, pixels) * (n - 1)
    depth = np.linspace(0.87, -0.87, round(VOXELS_PER_PIXEL * pixels)) * (n - 1)
    z, y, x = np.meshgrid(depth, across, across, indexing="ij")
    seen = np.stack([x, y, z], axis=-1) @ turn  # x_volume = Rᵀ x_seen
    places = np.moveaxis(seen[..., ::-1], -1, 0) + n // 2
    values = ndimage.map_coordinates(
        volume.astype(np.float64), places, order=3, mode="constant", cval=float(volume.min())
    )
    above = values > level
    hit = above.any(axis=0)
    first = np.where(hit, above.argmax(axis=0), 1).clip(1)
    rows, columns = np.indices(hit.shape)
    before, after = values[first - 1, rows, columns], values[first, rows, columns]
    part = np.clip((level - before) / np.where(after == before, 1, after - before), 0, 1)
    # The surface as a height field would have steps at its silhouette; the map's own gradient has none.
    slopes = np.stack([g[first, rows, columns] for g in np.gradient(values, depth, across, across)][::-1], axis=-1)
    normals = -slopes / np.maximum(np.linalg.norm(slopes, axis=-1, keepdims=True), 1e-12)
    shade = np.clip(normals @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)
    depth_cue = 1 - 0.25 * (first - 1 + part) / len(depth)
    return np.where(hit, (AMBIENT + (1 - AMBIENT) * shade) * depth_cue, np.nan)
