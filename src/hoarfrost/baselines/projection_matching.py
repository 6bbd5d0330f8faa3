"""Iterative projection matching: every image gets its best-correlating pose, then the map is reconstructed directly.

    (R_i, t_i) = argmax_j  Re⟨Ĩ_i , S_j C_i P_j V⟩ / ‖C_i P_j V‖  (both whitened)
    V̂ = B / (H + ε max H),    B = Σ_i P_iᵀ C_i S_i* Ĩ_i/σ²,    H = Σ_i P_iᵀ C_i²/σ²

Penczek, Grassucci & Frank (1994), Ultramicroscopy 53, 251. The search is global and exhaustive over the same poses
as the marginal likelihood's sum, and its costs are counted as one image gradient an image.
"""

import torch
from torch import Tensor

from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.plane_harmonics import HALF_OF_SYMMETRIES
from hoarfrost.model.all_poses.pose_model import PoseModel
from hoarfrost.model.images import WhitenedImages

SCORES_PER_TILE = 1 << 22
# ε: Fourier coefficients that no image saw stay near zero.
FLOOR = 1e-3


def iterate(band: BandModel, images: WhitenedImages, volume: Tensor, support: Tensor) -> Tensor:
    """One iteration over all images: the next volume (box, box, box), zero outside `support`."""
    slices = band.operator.slices(volume)
    numerator, weight = torch.zeros_like(slices), torch.zeros_like(slices.real)
    poses = band.poses
    rows = len(HALF_OF_SYMMETRIES) * poses.shifts.shifts_px.shape[0]
    step = max(1, SCORES_PER_TILE // (2 * rows * len(slices)))
    for first in range(0, len(images), step):
        _assign(images[first : first + step], slices, poses, numerator, weight)
    return band.operator.average(numerator, weight, lambda total: FLOOR * total.max()) * support


def _assign(images: WhitenedImages, slices: Tensor, poses: PoseModel, numerator: Tensor, weight: Tensor) -> None:
    """Add each image's statistics, at its best pose alone, to the sums (n_base, K)."""
    b, n_base = len(images), len(slices)
    real, imaginary = poses.orient_data(images)
    rows = real.shape[0] // b
    n_half = len(HALF_OF_SYMMETRIES)
    power = poses.orient_power(images)
    length = (power @ slices.abs().square().T).sqrt().clamp(min=1e-20)
    length = length.view(b, n_half, 1, n_base).expand(-1, -1, rows // n_half, -1).reshape(b * rows, n_base)
    sums, differences = real @ slices.real.T, imaginary @ slices.imag.T
    # A half turn conjugates the slice.
    correlation = torch.stack([(sums + differences) / length, (sums - differences) / length])
    best = correlation.view(2, b, rows * n_base).transpose(0, 1).reshape(b, -1).argmax(dim=1)
    turned, rest = best // (rows * n_base), best % (rows * n_base)
    row, base = rest // n_base, rest % n_base
    chosen = torch.arange(b, device=best.device) * rows + row
    sign = 1 - 2 * turned[:, None].to(real.dtype)
    numerator.index_add_(0, base, torch.complex(real[chosen], imaginary[chosen] * sign))
    symmetry = torch.arange(b, device=best.device) * n_half + row // (rows // n_half)
    weight.index_add_(0, base, power[symmetry])
