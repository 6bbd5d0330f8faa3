"""A drawn density with the gross shape of a ribosome: two subunits about a cleft, with stalks, of many small blobs.

It stands for the 70S ribosome where nothing can be downloaded. No atom of it is where one of the molecule is.
"""

import torch
from torch import Tensor

from hoarfrost.maths.seeds import named_generator

# Centre and half axes, as fractions of the box in x, y, z, and the blobs in each.
LOBES = (
    ((0.00, -0.09, 0.00), (0.21, 0.15, 0.19), 300),  # the large subunit
    ((-0.04, 0.15, -0.03), (0.17, 0.07, 0.13), 130),  # body of the small subunit
    ((0.13, 0.17, 0.13), (0.09, 0.06, 0.07), 40),  # its head
    ((0.01, -0.04, 0.21), (0.04, 0.05, 0.06), 20),  # central protuberance
    ((-0.25, -0.03, 0.05), (0.07, 0.03, 0.03), 16),  # one stalk
    ((0.24, -0.02, -0.07), (0.06, 0.03, 0.04), 16),  # the other
)
WIDTHS = (0.014, 0.026)  # deviations of the blobs, of the box


def make_ribosome(box: int, seed: int = 0) -> Tensor:
    """Gaussian blobs that fill six ellipsoids, none alike: float32 (box, box, box), largest value 1."""
    generator = named_generator(seed, "ribosome")
    centres = []
    for middle, half_axes, n_blobs in LOBES:
        directions = torch.randn(n_blobs, 3, generator=generator, dtype=torch.float64)
        radii = torch.rand(n_blobs, 1, generator=generator, dtype=torch.float64).pow(1 / 3)
        inside = directions / directions.norm(dim=1, keepdim=True) * radii
        centres.append(inside * torch.tensor(half_axes) + torch.tensor(middle))
    places = torch.cat(centres)
    low, high = WIDTHS
    widths = low + (high - low) * torch.rand(len(places), generator=generator, dtype=torch.float64)
    axis = (torch.arange(box, dtype=torch.float64) - box // 2) / box
    # A Gaussian is a product of one factor an axis: (3, blobs, box).
    along = torch.exp(-0.5 * ((axis - places.T.unsqueeze(-1)) / widths.unsqueeze(-1)).square())
    volume = torch.einsum("bz,by,bx->zyx", along[2], along[1], along[0])
    return (volume / volume.max()).to(torch.float32)
