"""To the coordinates of `plane_harmonics` and back, and from products of them to scores: sweeps over memory.

Slices become operands of matrix products, sums of these the statistics of slices; and where a product is of one kind of
coordinates, a score is a sum of four or two of them. On the CPU in single precision all of it is compiled, by Numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoarfrost.maths.compiled import F32, FAST, arrays, compiled, is_compiled
from hoarfrost.model.all_poses.plane_harmonics import PlaneHarmonics

ZERO = F32(0)
AT_ONCE = 16


def arrange_slices(slices: Tensor, log_weights: Tensor, basis: PlaneHarmonics, joint: Tensor, odd: Tensor) -> None:
    """From slices (n, K, 2) fill `joint` (n, 2E) and `odd` (n, 2 O) with their coordinates.

    `joint` has, for each kind, those of the real parts of 2 P_j V and then those of −|P_j V|², the last of the first
    kind being the log weight; `odd` has those of the imaginary parts of 2 P_j V.
    """
    if is_compiled(joint):
        sizes = np.array(basis.sizes)
        _arrange_slices(*arrays(slices, log_weights, *basis.even_terms, *basis.odd_terms), sizes, *arrays(joint, odd))
        return
    real = torch.split((2 * slices[..., 0]) @ basis.even.T, basis.sizes, dim=1)
    power = torch.split(-slices.square().sum(dim=2) @ basis.even.T, basis.sizes, dim=1)
    joint.copy_(torch.cat([part for of_kind in zip(real, power, strict=True) for part in of_kind], dim=1))
    joint[:, 2 * basis.sizes[0] - 1] = log_weights
    torch.mm(2 * slices[..., 1], basis.odd.T, out=odd)


def arrange_statistics(joint: Tensor, odd: Tensor, basis: PlaneHarmonics, numerator: Tensor, weight: Tensor) -> None:
    """From sums `joint` (2E, n) and `odd` (2 O, n) of coordinates fill `numerator` (n, K, 2) and `weight` (n, K)."""
    if is_compiled(joint) and len(weight) >= AT_ONCE:
        sizes = np.array(basis.sizes)
        _arrange_statistics(*arrays(joint, odd, *basis.even_back, *basis.odd_back), sizes, *arrays(numerator, weight))
        return
    parts = torch.split(joint, [size for size in basis.sizes for _ in range(2)])
    numerator[..., 0] = torch.cat(parts[::2]).T @ basis.even
    numerator[..., 1] = odd.T @ basis.odd
    torch.mm(torch.cat(parts[1::2]).T, basis.even, out=weight)


def scores_of_products(even: Tensor, odd: Tensor, basis: PlaneHarmonics, scores: Tensor) -> None:
    """Fill `scores` (2, b, 4, S, width): ⟨P_g e, x⟩ and ⟨P_g o, x⟩ under half of the symmetries g.

    `even` (4, b · S, width) has ⟨e_c, x_c⟩ of each kind; `odd` ⟨u, u'⟩, ⟨w, u'⟩, ⟨u, w'⟩ and ⟨w, w'⟩.
    """
    b, n_symmetries, n_shifts, width = scores.shape[1:]
    if is_compiled(scores):
        _scores_of_products(*arrays(even, odd, scores[0], scores[1]))
        return
    shape = n_symmetries, b, n_shifts, width
    scores[0] = torch.einsum("cg,cbsk->bgsk", basis.characters, even.view(shape))
    scores[1] = torch.einsum("gp,pbsk->bgsk", basis.odd_signs, odd.view(shape))


def products_of_likelihoods(
    both: Tensor, difference: Tensor, scale: Tensor, chosen: Tensor, basis: PlaneHarmonics, even: Tensor, odd: Tensor
) -> None:
    """The transpose, of likelihoods (b, 4, S, width) times `scale` (b,): of the images and shifts `chosen` (m,) only.

    They are numbered i S + s. Fills `even` and `odd` (4, m, width), what coordinates weigh in sums of statistics.
    """
    if is_compiled(both):
        _products_of_likelihoods(*arrays(both, difference, scale, chosen, even, odd))
        return
    n_shifts = both.shape[2]
    image, shift = chosen // n_shifts, chosen % n_shifts
    factor = scale[image, None, None]
    torch.sum(basis.characters[:, None, :, None] * (both[image, :, shift] * factor), dim=2, out=even)
    torch.sum(basis.odd_signs.T[:, None, :, None] * (difference[image, :, shift] * factor), dim=2, out=odd)


# Sixteen orientations at a time stand side by side, a vector of the processor, where sums over coefficients are taken.


@compiled(fastmath=FAST)
def _arrange_slices(
    slices: Any, log_weights: Any, even_column: Any, even_factor: Any, odd_column: Any, odd_factor: Any, sizes: Any,
    joint: Any, odd: Any,
) -> None:  # fmt: skip
    n, n_coefficients, _ = slices.shape
    shape = n_coefficients, AT_ONCE
    real, imaginary, power = np.zeros(shape, F32), np.zeros(shape, F32), np.zeros(shape, F32)
    of_real, of_power = np.empty((sizes.sum(), AT_ONCE), F32), np.empty((sizes.sum(), AT_ONCE), F32)
    of_imaginary = np.empty((len(odd[0]), AT_ONCE), F32)
    for begin in range(0, n, AT_ONCE):
        some = min(AT_ONCE, n - begin)
        for j in range(some):
            for k in range(n_coefficients):
                x, y = slices[begin + j, k, 0], slices[begin + j, k, 1]
                real[k, j], imaginary[k, j], power[k, j] = x + x, y + y, -(x * x + y * y)
        _sum_terms(real, even_column, even_factor, 0, of_real)
        _sum_terms(power, even_column, even_factor, 0, of_power)
        _sum_terms(imaginary, odd_column, odd_factor, 0, of_imaginary)
        for j in range(some):
            row, first = joint[begin + j], 0
            for size in sizes:
                for p in range(first, first + size):
                    row[first + p] = of_real[p, j]
                for p in range(first, first + size):
                    row[first + size + p] = of_power[p, j]
                first += size
            row[2 * sizes[0] - 1] = log_weights[begin + j]
            for p in range(len(of_imaginary)):
                odd[begin + j, p] = of_imaginary[p, j]


@compiled(fastmath=FAST, inline="always")
def _sum_terms(rows: Any, column: Any, factor: Any, begin: int, sums: Any) -> None:
    """`sums` (m, AT_ONCE): each the sum of four rows times their factors, from a place on."""
    for p in range(len(sums)):
        a, b, c, d = rows[column[0, p]], rows[column[1, p]], rows[column[2, p]], rows[column[3, p]]
        e, f, g, h = factor[0, p], factor[1, p], factor[2, p], factor[3, p]
        for j in range(AT_ONCE):
            sums[p, j] = e * a[begin + j] + f * b[begin + j] + g * c[begin + j] + h * d[begin + j]


@compiled(fastmath=FAST)
def _arrange_statistics(
    joint: Any, odd: Any, even_column: Any, even_factor: Any, odd_column: Any, odd_factor: Any, sizes: Any,
    numerator: Any, weight: Any,
) -> None:  # fmt: skip
    n, n_coefficients = weight.shape
    # Rows of `joint` with each even coordinate of real parts and of power.
    real_column, power_column = np.empty_like(even_column), np.empty_like(even_column)
    for t in range(len(even_column)):
        for k in range(n_coefficients):
            kind, before = 0, 0
            while even_column[t, k] >= before + sizes[kind]:
                before += sizes[kind]
                kind += 1
            real_column[t, k] = even_column[t, k] + before
            power_column[t, k] = real_column[t, k] + sizes[kind]
    shape = n_coefficients, AT_ONCE
    real, imaginary, power = np.empty(shape, F32), np.empty(shape, F32), np.empty(shape, F32)
    for first in range(0, n, AT_ONCE):
        # The last sixteen may be some of those before.
        begin = max(0, min(first, n - AT_ONCE))
        _sum_terms(joint, real_column, even_factor, begin, real)
        _sum_terms(joint, power_column, even_factor, begin, power)
        _sum_terms(odd, odd_column, odd_factor, begin, imaginary)
        for j in range(AT_ONCE):
            for k in range(n_coefficients):
                numerator[begin + j, k, 0] = real[k, j]
                numerator[begin + j, k, 1] = imaginary[k, j]
                weight[begin + j, k] = power[k, j]


@compiled(fastmath=FAST)
def _scores_of_products(even: Any, odd: Any, plain: Any, turned: Any) -> None:
    n_images, _, n_shifts, width = plain.shape
    for i in range(n_images):
        for s in range(n_shifts):
            row = i * n_shifts + s
            e0, e1, e2, e3 = even[0, row], even[1, row], even[2, row], even[3, row]
            uu, wu, uw, ww = odd[0, row], odd[1, row], odd[2, row], odd[3, row]
            a0, a1, a2, a3 = plain[i, 0, s], plain[i, 1, s], plain[i, 2, s], plain[i, 3, s]
            b0, b1, b2, b3 = turned[i, 0, s], turned[i, 1, s], turned[i, 2, s], turned[i, 3, s]
            for k in range(width):
                p, q, r, t = e0[k] + e1[k], e0[k] - e1[k], e2[k] + e3[k], e2[k] - e3[k]
                a0[k], a1[k], a2[k], a3[k] = p + r, q + t, p - r, q - t
                b0[k], b1[k], b2[k], b3[k] = uu[k] + ww[k], uw[k] - wu[k], uu[k] - ww[k], -wu[k] - uw[k]


@compiled(fastmath=FAST)
def _products_of_likelihoods(both: Any, difference: Any, scale: Any, chosen: Any, even: Any, odd: Any) -> None:
    n_shifts, width = both.shape[2:]
    for m in range(len(chosen)):
        i, s = chosen[m] // n_shifts, chosen[m] % n_shifts
        factor = scale[i]
        a0, a1, a2, a3 = both[i, 0, s], both[i, 1, s], both[i, 2, s], both[i, 3, s]
        b0, b1, b2, b3 = difference[i, 0, s], difference[i, 1, s], difference[i, 2, s], difference[i, 3, s]
        e0, e1, e2, e3 = even[0, m], even[1, m], even[2, m], even[3, m]
        uu, wu, uw, ww = odd[0, m], odd[1, m], odd[2, m], odd[3, m]
        for k in range(width):
            p, q = factor * (a0[k] + a2[k]), factor * (a1[k] + a3[k])
            r, t = factor * (a0[k] - a2[k]), factor * (a1[k] - a3[k])
            e0[k], e1[k], e2[k], e3[k] = p + q, p - q, r + t, r - t
            uu[k], ww[k] = factor * (b0[k] + b2[k]), factor * (b0[k] - b2[k])
            wu[k], uw[k] = -factor * (b1[k] + b3[k]), factor * (b1[k] - b3[k])
