"""Sweeps over scores and coordinates by torch, in any precision and on any device: see `kernels.ScoreKernels`."""

import torch
from torch import Tensor

from hoarfrost.model.all_poses.block_sums import LOWEST_EXPONENT, BlockSums
from hoarfrost.model.all_poses.plane_harmonics import PlaneHarmonics


def arrange_slices(slices: Tensor, log_weights: Tensor, basis: PlaneHarmonics, joint: Tensor, odd: Tensor) -> None:
    """As `ScoreKernels.arrange_slices`."""
    real = torch.split((2 * slices[..., 0]) @ basis.even.T, basis.sizes, dim=1)
    power = torch.split(-slices.square().sum(dim=2) @ basis.even.T, basis.sizes, dim=1)
    joint.copy_(torch.cat([part for of_kind in zip(real, power, strict=True) for part in of_kind], dim=1))
    joint[:, 2 * basis.sizes[0] - 1] = log_weights
    torch.mm(2 * slices[..., 1], basis.odd.T, out=odd)


def arrange_statistics(joint: Tensor, odd: Tensor, basis: PlaneHarmonics, numerator: Tensor, weight: Tensor) -> None:
    """As `ScoreKernels.arrange_statistics`."""
    parts = torch.split(joint, [size for size in basis.sizes for _ in range(2)])
    numerator[..., 0] = torch.cat(parts[::2]).T @ basis.even
    numerator[..., 1] = odd.T @ basis.odd
    torch.mm(torch.cat(parts[1::2]).T, basis.even, out=weight)


def scores_of_products(products: Tensor, basis: PlaneHarmonics, scores: Tensor) -> None:
    """As `ScoreKernels.scores_of_products`."""
    b, n_symmetries, n_shifts, width = scores.shape[1:]
    even, odd = products.view(2, n_symmetries, b, n_shifts, width)
    scores[0] = torch.einsum("cg,cbsk->bgsk", basis.characters, even)
    scores[1] = torch.einsum("gp,pbsk->bgsk", basis.odd_signs, odd)


def exponentiate(products: Tensor, bias: Tensor, shift_log_weights: Tensor) -> BlockSums:
    """As `ScoreKernels.exponentiate`."""
    b, _, width = products.shape[1:]
    n_shifts = len(shift_log_weights)
    by_shift = products[0].view(b, -1, n_shifts, width)
    by_shift += bias[:, :, None, :]
    by_shift += shift_log_weights[:, None]
    _sum_and_difference(products)
    peak, place = products.amax(dim=(0, 3)).max(dim=1)
    products.sub_(peak[:, None, None]).clamp_(min=LOWEST_EXPONENT).exp_()
    squares = products.square().sum(dim=(0, 2, 3))
    _sum_and_difference(products)
    if n_shifts > 1:
        torch.sum(by_shift, dim=2, out=bias)
    return BlockSums(peak, place, products[0].sum(dim=2), squares)


def _sum_and_difference(pair: Tensor) -> None:
    """Turn the two halves of axis 0 of (2, …) into their sum and their difference, in place."""
    first, second = pair[0], pair[1]
    first.add_(second)
    torch.add(first, second, alpha=-2, out=second)


def products_of_likelihoods(
    likelihoods: Tensor, scale: Tensor, chosen: Tensor, basis: PlaneHarmonics, products: Tensor
) -> None:
    """As `ScoreKernels.products_of_likelihoods`."""
    n_shifts = likelihoods.shape[3]
    image, shift = chosen // n_shifts, chosen % n_shifts
    factor = scale[image, None, None]
    both, difference = (half[image, :, shift] * factor for half in likelihoods)
    torch.sum(basis.characters[:, None, :, None] * both, dim=2, out=products[0])
    torch.sum(basis.odd_signs.T[:, None, :, None] * difference, dim=2, out=products[1])
