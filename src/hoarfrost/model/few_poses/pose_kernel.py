"""The likelihood of poses, and its expansion about them, coefficient by coefficient in one sweep, on the CPU.

What `LocalModel` says, with nothing written to memory between V̂ at a frequency and the sums over frequencies: by torch
the steps between take twice as long as V̂ itself. Frequencies are taken a block at a time, so that all but the sums
under the window is done for many at once. They are whole numbers, so S_t(k) is a product of two of the few factors
exp(−2πi k t / N) of an axis. Compiled by Numba on first use; tensors are float32 on the CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from hoarfrost.maths.compiled import F32, FAST, arrays, compiled
from hoarfrost.nufft.cpu.rows import add_rows, expand_rows, sum_rows
from hoarfrost.nufft.cpu.window_table import BLOCK, WindowTable, find_places, find_points, new_places

ZERO = F32(0)
# Poses of an image that are looked at together, block by block: they are mostly near each other, so the grid points of
# one are in the cache when the next one asks for them.
MOST_TOGETHER = 64


def score_poses(
    frequencies: Tensor, box: int, image: Tensor, data: Tensor, ctf: Tensor, rotations: Tensor, shifts_px: Tensor,
    grid: Tensor, table: WindowTable, out: Tensor,
) -> None:  # fmt: skip
    """Fill `out` (p,) float64 with 2 Re⟨c S_t* y, P_R V⟩ − ⟨c², |P_R V|²⟩ of p poses of images `image` (p,).

    `frequencies` (K, 2) are whole numbers, `data` y (b, K, 2), `ctf` c (b, K), `rotations` (p, 3, 3), `shifts_px`
    (p, 2); V̂ is found from a grid (side³, 2) under a window. Poses of one image are to follow each other.
    """
    inputs = arrays(frequencies, image, data, ctf, rotations, shifts_px, grid, table.values, out)
    _score(*inputs, F32(-2 * np.pi / box), *table.scalars())


def expand_poses(
    frequencies: Tensor, box: int, data: Tensor, ctf: Tensor, rotations: Tensor, shifts_px: Tensor,
    grid: Tensor, table: WindowTable, out: Tensor,
) -> None:  # fmt: skip
    """The same of a pose of each image, and its expansion: `out` (p, 21) float64.

    The gain, its derivatives by (ω, s), and 2 Re JᴴJ row by row up to the diagonal: see `model.few_poses.likelihood`.
    """
    inputs = arrays(frequencies, data, ctf, rotations, shifts_px, grid, table.values, table.slopes, out)
    _expand(*inputs, F32(-2 * np.pi / box), *table.scalars())


def spread_poses(
    frequencies: Tensor, box: int, image: Tensor, data: Tensor, ctf: Tensor, share: Tensor, rotations: Tensor,
    shifts_px: Tensor, table: WindowTable, grids: tuple[Tensor, Tensor], planes: tuple[int, int],
) -> None:  # fmt: skip
    """Add γ c S_t* y and γ c² of p poses of shares γ (p,), under a window, to grids (side³, 2) and (side³,).

    What `score_poses` says of the others. Only planes of constant z are added to, from one to before another: calls for
    other planes can go on at the same time.
    """
    inputs = arrays(frequencies, image, data, ctf, share, rotations, shifts_px, *grids, table.values)
    _spread(*inputs, *planes, F32(-2 * np.pi / box), *table.scalars())


@compiled()
def _factors(shift: Any, per_px: Any, out: Any) -> None:
    """exp(i · per_px · k · shift) for k from −r to r: `out` (2, 2 r + 1), real and imaginary parts."""
    reach = out.shape[1] // 2
    angle = np.float64(per_px) * shift
    step_re, step_im, re, im = np.cos(angle), np.sin(angle), 1.0, 0.0
    for k in range(reach + 1):
        out[0, reach + k] = out[0, reach - k] = re
        out[1, reach + k], out[1, reach - k] = im, -im
        re, im = re * step_re - im * step_im, re * step_im + im * step_re


@compiled()
def _factors_of_poses(shifts: Any, per_px: Any, along_x: Any, along_y: Any) -> None:
    """Those of either axis of each of the shifts (n, 2)."""
    for p in range(len(shifts)):
        _factors(shifts[p, 0], per_px, along_x[p])
        _factors(shifts[p, 1], per_px, along_y[p])


@compiled()
def _reach(frequencies: Any) -> int:
    reach = 0
    for k in range(len(frequencies)):
        reach = max(reach, int(abs(frequencies[k, 0])), int(abs(frequencies[k, 1])))
    return reach


@compiled()
def _end_of_image(image: Any, first: int) -> int:
    """Where the poses end that are looked at together with the first."""
    end = first
    while end < len(image) and end - first < MOST_TOGETHER and image[end] == image[first]:
        end += 1
    return end


@compiled(fastmath=FAST, inline="always")
def _find_transfer(frequencies: Any, ctf: Any, along_x: Any, along_y: Any, transfer: Any) -> None:
    """c S_t(k) of frequencies (n, 2), (2, BLOCK), from the factors of either axis, that of 0 in their middle."""
    reach = along_x.shape[1] // 2
    for j in range(len(frequencies)):
        x, y = int(frequencies[j, 0]) + reach, int(frequencies[j, 1]) + reach
        a_re, a_im, b_re, b_im = along_x[0, x], along_x[1, x], along_y[0, y], along_y[1, y]
        transfer[0, j] = ctf[j] * (a_re * b_re - a_im * b_im)
        transfer[1, j] = ctf[j] * (a_re * b_im + a_im * b_re)


@compiled(fastmath=FAST)
def _score(
    frequencies: Any, image: Any, data: Any, ctf: Any, rotations: Any, shifts: Any, grid: Any, values: Any, out: Any,
    per_px: Any, width: Any, side: int, origin: Any, steps: Any, entries: Any,
) -> None:  # fmt: skip
    shape = MOST_TOGETHER, 2, 2 * _reach(frequencies) + 1
    along_x, along_y = np.empty(shape, F32), np.empty(shape, F32)
    points, places, transfer, v = (
        np.empty((3, BLOCK), F32),
        new_places(),
        np.empty((2, BLOCK), F32),
        np.empty((2, BLOCK), F32),
    )
    start, entry = places
    first = 0
    while first < len(rotations):
        i, end = image[first], _end_of_image(image, first)
        _factors_of_poses(shifts[first:end], per_px, along_x, along_y)
        out[first:end] = 0.0
        for begin in range(0, len(frequencies), BLOCK):
            some = frequencies[begin : begin + BLOCK]
            y, c = data[i, begin : begin + BLOCK], ctf[i, begin : begin + BLOCK]
            for p in range(first, end):
                find_points(some, rotations[p], points)
                find_places(points, len(some), places, width, side, origin, steps, entries)
                for j in range(len(some)):
                    v[0, j], v[1, j] = sum_rows(
                        grid, start[j], side, values, entry[0, j], entry[1, j], entry[2, j], width
                    )
                _find_transfer(some, c, along_x[p - first], along_y[p - first], transfer)
                gain = ZERO
                for j in range(len(some)):
                    re = transfer[0, j] * v[0, j] - transfer[1, j] * v[1, j]
                    im = transfer[0, j] * v[1, j] + transfer[1, j] * v[0, j]
                    gain += (y[j, 0] + y[j, 0] - re) * re + (y[j, 1] + y[j, 1] - im) * im
                out[p] += gain
        first = end


@compiled(fastmath=FAST)
def _expand(
    frequencies: Any, data: Any, ctf: Any, rotations: Any, shifts: Any, grid: Any, values: Any, slopes: Any, out: Any,
    per_px: Any, width: Any, side: int, origin: Any, steps: Any, entries: Any,
) -> None:  # fmt: skip
    shape = 2, 2 * _reach(frequencies) + 1
    along_x, along_y = np.empty(shape, F32), np.empty(shape, F32)
    points, places, transfer = np.empty((3, BLOCK), F32), new_places(), np.empty((2, BLOCK), F32)
    start, entry = places
    # V̂ and its derivatives by x, y and z, real and imaginary part of each.
    v = np.empty((8, BLOCK), F32)
    # Derivatives of S P_R V by ω and s, and what is left of the image: y − S P_R V.
    j_re, j_im, left = np.empty((5, BLOCK), F32), np.empty((5, BLOCK), F32), np.empty((2, BLOCK), F32)
    for p in range(len(rotations)):
        _factors(shifts[p, 0], per_px, along_x)
        _factors(shifts[p, 1], per_px, along_y)
        out[p] = 0.0
        for begin in range(0, len(frequencies), BLOCK):
            some = frequencies[begin : begin + BLOCK]
            y, n = data[p, begin : begin + BLOCK], len(some)
            find_points(some, rotations[p], points)
            find_places(points, n, places, width, side, origin, steps, entries)
            for j in range(n):
                v[0, j], v[1, j], v[2, j], v[3, j], v[4, j], v[5, j], v[6, j], v[7, j] = expand_rows(
                    grid, start[j], side, values, slopes, entry[0, j], entry[1, j], entry[2, j], width
                )
            _find_transfer(some, ctf[p, begin : begin + BLOCK], along_x, along_y, transfer)
            gain = ZERO
            for j in range(n):
                s_re, s_im = transfer[0, j], transfer[1, j]
                re, im = s_re * v[0, j] - s_im * v[1, j], s_re * v[1, j] + s_im * v[0, j]
                left[0, j], left[1, j] = y[j, 0] - re, y[j, 1] - im
                gain += (y[j, 0] + left[0, j]) * re + (y[j, 1] + left[1, j]) * im
                j_re[3, j], j_im[3, j] = -per_px * some[j, 0] * im, per_px * some[j, 0] * re
                j_re[4, j], j_im[4, j] = -per_px * some[j, 1] * im, per_px * some[j, 1] * re
            out[p, 0] += gain
            for axis in range(3):
                # −p × ∂V̂/∂p
                a, b = (axis + 1) % 3, (axis + 2) % 3
                for j in range(n):
                    re = points[b, j] * v[2 + 2 * a, j] - points[a, j] * v[2 + 2 * b, j]
                    im = points[b, j] * v[3 + 2 * a, j] - points[a, j] * v[3 + 2 * b, j]
                    j_re[axis, j] = transfer[0, j] * re - transfer[1, j] * im
                    j_im[axis, j] = transfer[0, j] * im + transfer[1, j] * re
            place = 6
            for a in range(5):
                out[p, 1 + a] += 2 * _product(j_re[a], j_im[a], left[0], left[1], n)
                for b in range(a + 1):
                    out[p, place] += 2 * _product(j_re[a], j_im[a], j_re[b], j_im[b], n)
                    place += 1


@compiled(fastmath=FAST, inline="always")
def _product(a_re: Any, a_im: Any, b_re: Any, b_im: Any, n: int) -> Any:
    """Re Σ a* b over the first n."""
    total = ZERO
    for j in range(n):
        total += a_re[j] * b_re[j] + a_im[j] * b_im[j]
    return total


@compiled(fastmath=FAST)
def _spread(
    frequencies: Any, image: Any, data: Any, ctf: Any, share: Any, rotations: Any, shifts: Any, grid: Any, weights: Any,
    values: Any, first_plane: int, end_plane: int, per_px: Any,
    width: Any, side: int, origin: Any, steps: Any, entries: Any,
) -> None:  # fmt: skip
    shape = MOST_TOGETHER, 2, 2 * _reach(frequencies) + 1
    along_x, along_y = np.empty(shape, F32), np.empty(shape, F32)
    points, places, transfer = np.empty((3, BLOCK), F32), new_places(), np.empty((2, BLOCK), F32)
    start, entry = places
    plane = side * side
    first = 0
    while first < len(rotations):
        i, end = image[first], _end_of_image(image, first)
        _factors_of_poses(shifts[first:end], per_px, along_x, along_y)
        for begin in range(0, len(frequencies), BLOCK):
            some = frequencies[begin : begin + BLOCK]
            y, c = data[i, begin : begin + BLOCK], ctf[i, begin : begin + BLOCK]
            for p in range(first, end):
                find_points(some, rotations[p], points)
                find_places(points, len(some), places, width, side, origin, steps, entries)
                _find_transfer(some, c, along_x[p - first], along_y[p - first], transfer)
                for j in range(len(some)):
                    s_re, s_im = share[p] * transfer[0, j], share[p] * transfer[1, j]
                    transfer[0, j] = s_re * y[j, 0] + s_im * y[j, 1]
                    transfer[1, j] = s_re * y[j, 1] - s_im * y[j, 0]
                for j in range(len(some)):
                    z, weight = start[j] // plane, share[p] * c[j] * c[j]
                    for step in range(len(width)):
                        if first_plane <= z + step < end_plane:
                            along_z = values[entry[2, j], step]
                            place = start[j] + step * plane
                            number = along_z * transfer[0, j], along_z * transfer[1, j]
                            add_rows(grid, place, side, values, entry[0, j], entry[1, j], number, width)
                            add_rows(weights, place, side, values, entry[0, j], entry[1, j], (along_z * weight,), width)
        first = end
