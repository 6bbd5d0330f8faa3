"""The particle's diameter as its first map shows it: narrower than any mask about crowded images can be.

The map need not be right for that. How far from the middle there is density is known long before the orientations are.
"""

import torch
from torch import Tensor

from hoarfrost.evaluation.particle_mask import largest_islands, otsu_threshold
from hoarfrost.maths.fourier import fourier_resize, radius_grid

# Of Otsu's threshold: half of it takes in the faint outer parts of a particle that is not round.
SHARE_OF_THRESHOLD = 0.5
# Voxels a side on which the density is looked at, so that a voxel is much smaller than the detail.
FINE_BOX = 64
# Some voxels of noise at the outermost are left out.
OUTERMOST = 0.995
# The mask is to lose nothing of the particle. More than that, it lets neighbours and noise in.
ROOM = 1.05
# Of the diameter before: a first map may be wrong, and is not to take away more of the particle.
LEAST_OF_DIAMETER = 0.7


def diameter_of_map(volume: Tensor) -> float:
    """How wide the particle is in a map (n, n, n), protein positive, as a share of the box, with a little room."""
    fine = fourier_resize(volume.cpu().to(torch.float64), max(FINE_BOX, volume.shape[-1]))
    density = fine.numpy()
    inside = torch.from_numpy(largest_islands(density > SHARE_OF_THRESHOLD * otsu_threshold(density)))
    if not bool(inside.any()):
        return 1.0
    radii = radius_grid(fine.shape[-1], 3)[inside]
    return min(1.0, ROOM * 2 * float(radii.quantile(OUTERMOST)) / fine.shape[-1])
