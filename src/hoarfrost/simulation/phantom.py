"""A molecule for tests and examples: a handful of Gaussian blobs without any symmetry."""

import torch
from torch import Tensor

from hoarfrost.errors import UsageError

SMALLEST_BOX = 8


def make_phantom(box: int, seed: int = 0, n_blobs: int = 30) -> Tensor:
    """A positive, asymmetric volume of Gaussian blobs: float32 (box, box, box), largest value 1.

    Boxes of any size show the same object, within 0.4 box of the origin apart from tails below 1 %. Raises UsageError
    for a box below 8 voxels or no blobs.
    """
    if box < SMALLEST_BOX or n_blobs < 1:
        raise UsageError(f"a phantom needs a box of {SMALLEST_BOX} voxels and 1 blob or more, not {box} and {n_blobs}")
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n_blobs, 3, generator=generator, dtype=torch.float64)
    # Unequal axes, so that low resolution already tells the orientation.
    axes = torch.tensor([0.28, 0.20, 0.14], dtype=torch.float64)
    radii = torch.rand(n_blobs, 1, generator=generator, dtype=torch.float64).pow(1 / 3)
    centres = directions / directions.norm(dim=-1, keepdim=True) * radii * axes
    widths = 0.025 + 0.02 * torch.rand(n_blobs, generator=generator, dtype=torch.float64)
    heights = 0.5 + torch.rand(n_blobs, generator=generator, dtype=torch.float64)

    axis = (torch.arange(box, dtype=torch.float64) - box // 2) / box
    # A Gaussian is a product of one factor an axis: (n_blobs, box) each.
    along = torch.exp(-0.5 * ((axis - centres.T.unsqueeze(-1)) / widths.unsqueeze(-1)).square())
    volume = torch.einsum("b,bz,by,bx->zyx", heights, along[2], along[1], along[0])
    return (volume / volume.max()).to(torch.float32)
