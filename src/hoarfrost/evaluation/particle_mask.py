"""A soft mask about the particle, made from its own map, so that the solvent's noise does not count.

The map is low-passed. What is above Otsu's threshold counts as the particle, without small islands. It grows by a few
voxels and fades out over a few more.

Otsu (1979), IEEE Trans. Syst. Man Cybern. 9, 62: the threshold that splits the values into two classes with means m₀
and m₁ and shares w₀ and w₁ such that w₀ w₁ (m₁ − m₀)² is greatest.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from hoarfrost.maths.fourier import fft3_centred, ifft3_centred, soft_sphere

# In voxels, or in lengths of the detail that the low-passed map still has, whichever is more.
GROWTH_VOXELS, GROWTH_LENGTHS = 3.0, 0.5
EDGE_VOXELS, EDGE_LENGTHS = 5.0, 1.0
LOW_PASS_EDGE = 3.0
# Islands with less than this share of the largest one's voxels are taken for noise.
LEAST_ISLAND = 0.1
HISTOGRAM_BINS = 256


def make_particle_mask(volume: Tensor, r_low: float) -> Tensor:
    """From 1 in and about the particle to 0 in the solvent: float64 (n, n, n), like `volume`, protein positive.

    `r_low` in Fourier pixels is where the low-pass filter begins. A volume without contrast has a mask of ones.
    """
    n = volume.shape[-1]
    spectrum = fft3_centred(volume.cpu().to(torch.float64)) * soft_sphere(n, 2 * r_low, LOW_PASS_EDGE)
    smooth = ifft3_centred(spectrum).real.numpy()
    inside = largest_islands(smooth > otsu_threshold(smooth))
    if not inside.any():
        return torch.ones(n, n, n, dtype=torch.float64)
    length_voxels = n / r_low
    growth = max(GROWTH_VOXELS, GROWTH_LENGTHS * length_voxels)
    edge = max(EDGE_VOXELS, EDGE_LENGTHS * length_voxels)
    distance = torch.from_numpy(ndimage.distance_transform_edt(~inside))
    return 0.5 * (1 + torch.cos(math.pi * ((distance - growth) / edge).clamp(0, 1)))


def otsu_threshold(values: npt.NDArray[np.float64]) -> float:
    """Otsu's threshold of an array of any shape; its greatest value where all are the same."""
    counts, edges = np.histogram(values, HISTOGRAM_BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sum_below = np.cumsum(counts * centres)[:-1]
    # Classes that are empty would divide by zero, and separate nothing.
    mean_below = sum_below / below.clip(1)
    mean_above = (float(counts @ centres) - sum_below) / above.clip(1)
    between = np.where((below > 0) & (above > 0), below * above * np.square(mean_above - mean_below), 0.0)
    return float(edges[1:-1][between.argmax()]) if values.max() > values.min() else float(values.max())


def largest_islands(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """What is `inside` (n, n, n) without islands much smaller than the largest."""
    labels, n_islands = ndimage.label(inside, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=n_islands + 1)
    sizes[0] = 0
    large: npt.NDArray[np.bool_] = (sizes > LEAST_ISLAND * sizes.max())[labels]
    return large
