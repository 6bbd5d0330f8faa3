"""From the products of a block of scores to likelihoods, in one sweep over memory.

A block has rows (image, symmetry, shift) and columns (base orientations). Where a is the product of the real parts plus
the bias of a row's image and symmetry, and b that of the imaginary parts, the scores of an orientation and of that half
a turn away are a + b and a − b. Done by torch, operation by operation, the way from there to likelihoods goes ten times
over the block, which costs as much as the products. On the CPU in single precision it is compiled, by Numba.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hoarfrost.maths.compiled import F32, FAST, arrays, compiled, is_compiled

# exp() of anything lower is lost in a sum of 10⁷ terms. It must not be let go on: denormal numbers make exp and matrix
# products 5 to 30 times slower, and even the square of this is none.
LOWEST_EXPONENT = -40.0
# A row whose best score is this far below the image's best of the block is left at zero: even 10⁵ such poses together
# are 10⁻⁸ of that one.
NEGLIGIBLE_ROW = -30.0


class BlockSums(NamedTuple):
    """What a block of likelihoods leaves of b images: `peak` highest score, `row` where it is, `squares` of all, (b,).

    `row_sums` (b, rows) are the sums of the likelihoods of each row. Likelihoods are exp(score − peak).
    """

    peak: Tensor
    row: Tensor
    row_sums: Tensor
    squares: Tensor


def exponentiate(products: Tensor, bias: Tensor, shift_log_weights: Tensor) -> BlockSums:
    """Turn products (2, b, rows, width) into likelihoods in place: plain plus turned, and plain minus turned.

    `bias`, (b, rows / S, width) or (1, 1, width), and the log weights (S,) of the shifts are added to each score first.
    With several shifts, `bias` becomes the likelihoods plain plus turned summed over shifts.
    """
    if is_compiled(products):
        return _by_numba(products, bias, shift_log_weights)
    return _by_torch(products, bias, shift_log_weights)


def _by_torch(products: Tensor, bias: Tensor, shift_log_weights: Tensor) -> BlockSums:
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


def _by_numba(products: Tensor, bias: Tensor, shift_log_weights: Tensor) -> BlockSums:
    b, rows, _ = products.shape[1:]
    sums = BlockSums(torch.empty(b), torch.empty(b, dtype=torch.int64), torch.empty(b, rows), torch.empty(b))
    _exponentiate(*arrays(products[0], products[1], bias, shift_log_weights, *sums))
    return sums


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

    Found as the highest of the whole numbers with the same bits: only those are compared eight or sixteen at a time,
    which takes a third of the time.
    """
    highest = LOWEST_BITS
    for k in range(len(a)):
        bits = np.int32(F32(a[k] + z[k] + abs(b[k])).view(np.int32))
        # Among negative numbers a higher whole number means a lower one, so turn all their bits but the sign.
        highest = max(highest, np.int32(bits ^ ((bits >> SIGN_BIT) & ALL_BUT_SIGN)))
    return np.int32(highest ^ ((highest >> SIGN_BIT) & ALL_BUT_SIGN)).view(F32)


@compiled(fastmath=FAST)
def _exponentiate(
    plain: Any, turned: Any, bias: Any, shift_log_weights: Any, peak: Any, row: Any, row_sums: Any, squares: Any
) -> None:
    """`exponentiate` of arrays: products of the real and of the imaginary parts, the bias, and where results go."""
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
