"""Sweeps over scores and coordinates, compiled for the CPU in single precision: see `kernels.ScoreKernels`.

Let a be the product of the real parts plus the bias of a row's image and symmetry, and b that of the imaginary parts.
The scores of an orientation and of the one half a turn away are a + b and a − b. One sweep turns them into likelihoods,
where torch would go over the block once for each operation.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoarfrost.maths.compiled import F32, FAST, arrays, compiled
from hoarfrost.model.all_poses import torch as by_torch
from hoarfrost.model.all_poses.block_sums import LOWEST_EXPONENT, BlockSums
from hoarfrost.model.all_poses.plane_harmonics import PlaneHarmonics

# Orientations whose sums are taken at a time.
AT_ONCE = 16
# A row whose best score is this far below the image's best of the block is left at zero: even 10⁵ such poses together
# are 10⁻⁸ of that one.
NEGLIGIBLE_ROW = -30.0


def arrange_slices(slices: Tensor, log_weights: Tensor, basis: PlaneHarmonics, joint: Tensor, odd: Tensor) -> None:
    """As `ScoreKernels.arrange_slices`."""
    even, odds = (tuple(arrays(*terms)) for terms in (basis.even_terms, basis.odd_terms))
    _arrange_slices(*arrays(slices, log_weights), even, odds, np.array(basis.sizes), tuple(arrays(joint, odd)))


def arrange_statistics(joint: Tensor, odd: Tensor, basis: PlaneHarmonics, numerator: Tensor, weight: Tensor) -> None:
    """As `ScoreKernels.arrange_statistics`; of a few orientations by torch."""
    if len(weight) < AT_ONCE:
        by_torch.arrange_statistics(joint, odd, basis, numerator, weight)
        return
    even, odds = (tuple(arrays(*terms)) for terms in (basis.even_back, basis.odd_back))
    _arrange_statistics(tuple(arrays(joint, odd)), even, odds, np.array(basis.sizes), *arrays(numerator, weight))


def scores_of_products(products: Tensor, basis: PlaneHarmonics, scores: Tensor) -> None:
    """As `ScoreKernels.scores_of_products`."""
    _scores_of_products(*arrays(products, scores))


def exponentiate(products: Tensor, bias: Tensor, shift_log_weights: Tensor) -> BlockSums:
    """As `ScoreKernels.exponentiate`."""
    b, rows, _ = products.shape[1:]
    sums = BlockSums(torch.empty(b), torch.empty(b, dtype=torch.int64), torch.empty(b, rows), torch.empty(b))
    _exponentiate(*arrays(products, bias, shift_log_weights), BlockSums(*arrays(*sums)))
    return sums


def products_of_likelihoods(
    likelihoods: Tensor, scale: Tensor, chosen: Tensor, basis: PlaneHarmonics, products: Tensor
) -> None:
    """As `ScoreKernels.products_of_likelihoods`."""
    _products_of_likelihoods(*arrays(likelihoods, scale, chosen, products))


# Sums over coefficients take sixteen orientations at a time, side by side as a vector of the processor.


@compiled(fastmath=FAST)
def _arrange_slices(slices: Any, log_weights: Any, even: Any, odds: Any, sizes: Any, out: Any) -> None:
    joint, odd = out
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
        _sum_terms(real, even, 0, of_real)
        _sum_terms(power, even, 0, of_power)
        _sum_terms(imaginary, odds, 0, of_imaginary)
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
def _sum_terms(rows: Any, terms: Any, begin: int, sums: Any) -> None:
    """`sums` (m, AT_ONCE): each the sum of four rows times their factors, from a place on."""
    column, factor = terms
    for p in range(len(sums)):
        a, b, c, d = rows[column[0, p]], rows[column[1, p]], rows[column[2, p]], rows[column[3, p]]
        e, f, g, h = factor[0, p], factor[1, p], factor[2, p], factor[3, p]
        for j in range(AT_ONCE):
            sums[p, j] = e * a[begin + j] + f * b[begin + j] + g * c[begin + j] + h * d[begin + j]


@compiled(fastmath=FAST)
def _arrange_statistics(sums: Any, even: Any, odds: Any, sizes: Any, numerator: Any, weight: Any) -> None:
    joint, odd = sums
    even_column, even_factor = even
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
        # The last sixteen may overlap those before.
        begin = max(0, min(first, n - AT_ONCE))
        _sum_terms(joint, (real_column, even_factor), begin, real)
        _sum_terms(joint, (power_column, even_factor), begin, power)
        _sum_terms(odd, odds, begin, imaginary)
        for j in range(AT_ONCE):
            for k in range(n_coefficients):
                numerator[begin + j, k, 0] = real[k, j]
                numerator[begin + j, k, 1] = imaginary[k, j]
                weight[begin + j, k] = power[k, j]


@compiled(fastmath=FAST)
def _scores_of_products(products: Any, scores: Any) -> None:
    even, odd, plain, turned = products[0], products[1], scores[0], scores[1]
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
def _products_of_likelihoods(likelihoods: Any, scale: Any, chosen: Any, products: Any) -> None:
    both, difference, even, odd = likelihoods[0], likelihoods[1], products[0], products[1]
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


LOWEST, NEGLIGIBLE, ZERO, HALF, ONE = F32(LOWEST_EXPONENT), F32(NEGLIGIBLE_ROW), F32(0), F32(0.5), F32(1)
LOG2_E = F32(1 / np.log(2))
# ln 2 in two parts, the first so short that its product with a whole number below 2⁸ is exact.
LN2_HIGH = F32(round(np.log(2) * 2**15) / 2**15)
LN2_LOW = F32(np.log(2) - float(LN2_HIGH))
EXPONENT_BIAS, MANTISSA_BITS = np.int32(127), np.int32(23)
SIGN_BIT, ALL_BUT_SIGN, LOWEST_BITS = np.int32(31), np.int32(2**31 - 1), np.int32(-(2**31))


def _polynomial() -> tuple[Any, ...]:
    """Coefficients of (exp(r) − 1 − r) / r² over |r| ≤ ln 2 / 2, to 10⁻⁷ of exp(r)."""
    edge = np.log(2) / 2

    def function(r: Any) -> Any:
        return (np.expm1(r) - r) / r**2

    fitted = np.polynomial.Chebyshev.interpolate(function, 5, domain=[-edge, edge])
    return tuple(F32(c) for c in fitted.convert(kind=np.polynomial.Polynomial).coef)


C0, C1, C2, C3, C4, C5 = _polynomial()


@compiled(fastmath=FAST, inline="always")
def exponential(x: Any) -> Any:
    """exp(x) in single precision for x from −87 to 88, as 2ⁿ exp(r)."""
    n = np.floor(x * LOG2_E + HALF)
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = ((((C5 * r + C4) * r + C3) * r + C2) * r + C1) * r + C0
    power = np.int32((np.int32(n) + EXPONENT_BIAS) << MANTISSA_BITS).view(F32)
    return (p * r * r + r + ONE) * power


@compiled(fastmath=FAST)
def row_peak(a: Any, b: Any, z: Any) -> Any:
    """The highest of a + z ± b, or not a number if none is one.

    It is found as the highest of the whole numbers with the same bits, because the compiler compares only whole numbers
    many at a time.
    """
    highest = LOWEST_BITS
    for k in range(len(a)):
        bits = np.int32(F32(a[k] + z[k] + abs(b[k])).view(np.int32))
        # Among negative numbers a higher whole number means a lower one, so turn all their bits but the sign.
        highest = max(highest, np.int32(bits ^ ((bits >> SIGN_BIT) & ALL_BUT_SIGN)))
    return np.int32(highest ^ ((highest >> SIGN_BIT) & ALL_BUT_SIGN)).view(F32)


@compiled(fastmath=FAST)
def _exponentiate(products: Any, bias: Any, shift_log_weights: Any, sums: Any) -> None:
    """`exponentiate` of arrays; `sums` is where results go."""
    plain, turned = products[0], products[1]
    peak, row, row_sums, squares = sums
    n_images, n_rows, width = plain.shape
    n_shifts = len(shift_log_weights)
    last_i, last_r = bias.shape[0] - 1, bias.shape[1] - 1
    row_peaks = np.empty(n_rows, F32)
    for i in range(n_images):
        best = F32(-np.inf)
        row[i] = 0
        for r in range(n_rows):
            a, b, z = plain[i, r], turned[i, r], bias[min(i, last_i), min(r // n_shifts, last_r)]
            row_peaks[r] = row_peak(a, b, z) + shift_log_weights[r % n_shifts]
            if row_peaks[r] > best:
                best = row_peaks[r]
                row[i] = r
        peak[i] = best
        total_squares = ZERO
        for r in range(n_rows):
            a, b, z = plain[i, r], turned[i, r], bias[min(i, last_i), min(r // n_shifts, last_r)]
            offset = shift_log_weights[r % n_shifts] - best
            total = ZERO
            if row_peaks[r] - best < NEGLIGIBLE:
                for k in range(width):
                    a[k] = ZERO
                    b[k] = ZERO
            else:
                for k in range(width):
                    middle = a[k] + z[k] + offset
                    x, y = middle + b[k], middle - b[k]
                    p = exponential(max(x, LOWEST))
                    q = exponential(max(y, LOWEST))
                    a[k] = p + q
                    b[k] = p - q
                    total += p + q
                    total_squares += p * p + q * q
            row_sums[i, r] = total
        squares[i] = total_squares
        if n_shifts > 1:
            for r in range(n_rows):
                a, z = plain[i, r], bias[i, r // n_shifts]
                if r % n_shifts == 0:
                    for k in range(width):
                        z[k] = a[k]
                elif row_sums[i, r] != ZERO:
                    for k in range(width):
                        z[k] += a[k]
