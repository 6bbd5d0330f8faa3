"""The largest curvature of the NLL, from CTFs, grid and noise alone: the base step of first-order methods.

Under posteriors that are uniform over orientations, the Hessian of the mean NLL is 2 E[Pᵀ (C²/σ²) P], a convolution
that no data enter. Gradient descent with step 1/λ_max of it cannot overshoot where posteriors do not move.
"""

import torch
from torch import Tensor

from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.slices.operator import apply_normal, transform_normal_kernel


def expected_kernel(band: BandModel, images: WhitenedImages) -> Tensor:
    """Kernel of E[Pᵀ (C²/σ²) P] per image under uniform posteriors: real (2 box,)³."""
    power = images.ctf.square().mean(dim=0)
    # A base orientation stands for eight, which together see the disc's symmetric mean.
    symmetric = power[band.poses.permutation].sum(dim=0)
    weights = band.poses.base_log_weights.exp()[:, None] * symmetric[None, :]
    return band.operator.normal_kernel(weights)


def largest_curvature(
    band: BandModel, images: WhitenedImages, generator: torch.Generator, iterations: int = 30
) -> float:
    """λ_max of the expected Hessian of the mean NLL, by power iteration."""
    spectrum = transform_normal_kernel(expected_kernel(band, images))
    vector = torch.randn(band.box, band.box, band.box, generator=generator).to(band.device, band.dtype)
    value = torch.zeros(())
    for _ in range(iterations):
        vector = vector / vector.norm()
        image = 2 * apply_normal(spectrum, vector)
        value = (vector * image).sum()
        vector = image
    return float(value)
