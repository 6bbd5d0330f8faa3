"""The likelihood of poses, and its expansion about them, coefficient by coefficient in one sweep, on the CPU.

What `LocalModel` says, with nothing written to memory between V̂ at a frequency and the sums over frequencies: by torch
the steps between take twice as long as V̂ itself. Frequencies are whole numbers, so S_t(k) is a product of two of the
few factors exp(−2πi k t / N) of an axis. Compiled by Numba on first use; tensors are float32 on the CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from hoarfrost.model.compiled import F32, FAST, arrays, compiled
from hoarfrost.model.window_kernel import WindowTable, add_at, expand_at, sum_at

ZERO = F32(0)
# Poses of an image that are added at the same time.
MOST_TOGETHER = 64


def score_poses(
    frequencies: Tensor, box: int, image: Tensor, data: Tensor, ctf: Tensor, rotations: Tensor, shifts_px: Tensor,
    grid: Tensor, table: WindowTable, out: Tensor,
) -> None:  # fmt: skip
    """Fill `out` (p,) float64 with 2 Re⟨c S_t* y, P_R V⟩ − ⟨c², |P_R V|²⟩ of p poses of images `image` (p,).

    `frequencies` (K, 2) are whole numbers, `data` y (b, K, 2), `ctf` c (b, K), `rotations` (p, 3, 3), `shifts_px`
    (p, 2); V̂ is found from a grid (side³, 2) under a window.
    """
    inputs = arrays(frequencies, image, data, ctf, rotations, shifts_px, grid, table.values, out)
    _score(*inputs, F32(-2 * np.pi / box), *table.scalars())


def expand_poses(
    frequencies: Tensor, box: int, data: Tensor, ctf: Tensor, rotations: Tensor, shifts_px: Tensor,
    grid: Tensor, table: WindowTable, out: Tensor,
) -> None:  # fmt: skip
    """The same of a pose of each image, and its expansion: `out` (p, 21) float64.

    The gain, its derivatives by (ω, s), and 2 Re JᴴJ row by row up to the diagonal: see `hoarfrost.model.local`.
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
def _factors(shift: Any, per_px: Any, reach: int, out: Any) -> None:
    """exp(i · per_px · k · shift) for k from −reach to reach."""
    for k in range(-reach, reach + 1):
        angle = np.float64(per_px) * k * shift
        out[k + reach, 0] = np.cos(angle)
        out[k + reach, 1] = np.sin(angle)


@compiled()
def _reach(frequencies: Any) -> int:
    reach = 0
    for k in range(len(frequencies)):
        reach = max(reach, int(abs(frequencies[k, 0])), int(abs(frequencies[k, 1])))
    return reach


@compiled(fastmath=FAST, inline="always")
def _point(fx: Any, fy: Any, turn: Any) -> tuple[Any, Any, Any]:
    """Where the slice at a rotation samples V̂ for a frequency of the image."""
    return (
        fx * turn[0, 0] + fy * turn[1, 0],
        fx * turn[0, 1] + fy * turn[1, 1],
        fx * turn[0, 2] + fy * turn[1, 2],
    )


@compiled(fastmath=FAST, inline="always")
def _transfer(fx: Any, fy: Any, c: Any, along_x: Any, along_y: Any) -> tuple[Any, Any]:
    """c S_t(k), real and imaginary part, from the factors of either axis, that of 0 in their middle."""
    x, y = int(fx) + len(along_x) // 2, int(fy) + len(along_y) // 2
    a_re, a_im, b_re, b_im = along_x[x, 0], along_x[x, 1], along_y[y, 0], along_y[y, 1]
    return c * (a_re * b_re - a_im * b_im), c * (a_re * b_im + a_im * b_re)


@compiled(fastmath=FAST)
def _score(
    frequencies: Any, image: Any, data: Any, ctf: Any, rotations: Any, shifts: Any, grid: Any, values: Any, out: Any,
    per_px: Any, width: Any, side: int, origin: Any, steps: Any, entries: Any,
) -> None:  # fmt: skip
    reach = _reach(frequencies)
    along_x, along_y = np.empty((2 * reach + 1, 2), F32), np.empty((2 * reach + 1, 2), F32)
    for p in range(len(rotations)):
        turn, i = rotations[p], image[p]
        _factors(shifts[p, 0], per_px, reach, along_x)
        _factors(shifts[p, 1], per_px, reach, along_y)
        gain = 0.0
        for k in range(len(frequencies)):
            fx, fy = frequencies[k, 0], frequencies[k, 1]
            px, py, pz = _point(fx, fy, turn)
            v_re, v_im = sum_at(px, py, pz, grid, values, width, side, origin, steps, entries)
            s_re, s_im = _transfer(fx, fy, ctf[i, k], along_x, along_y)
            m_re, m_im = s_re * v_re - s_im * v_im, s_re * v_im + s_im * v_re
            gain += (data[i, k, 0] + data[i, k, 0] - m_re) * m_re + (data[i, k, 1] + data[i, k, 1] - m_im) * m_im
        out[p] = gain


@compiled(fastmath=FAST)
def _expand(
    frequencies: Any, data: Any, ctf: Any, rotations: Any, shifts: Any, grid: Any, values: Any, slopes: Any, out: Any,
    per_px: Any, width: Any, side: int, origin: Any, steps: Any, entries: Any,
) -> None:  # fmt: skip
    reach = _reach(frequencies)
    along_x, along_y = np.empty((2 * reach + 1, 2), F32), np.empty((2 * reach + 1, 2), F32)
    # Of one coefficient, the derivatives of S P_R V by ω and s.
    j_re, j_im = np.empty(5, F32), np.empty(5, F32)
    for p in range(len(rotations)):
        turn = rotations[p]
        _factors(shifts[p, 0], per_px, reach, along_x)
        _factors(shifts[p, 1], per_px, reach, along_y)
        out[p] = 0.0
        for k in range(len(frequencies)):
            fx, fy = frequencies[k, 0], frequencies[k, 1]
            px, py, pz = _point(fx, fy, turn)
            v_re, v_im, x_re, x_im, y_re, y_im, z_re, z_im = expand_at(
                px, py, pz, grid, values, slopes, width, side, origin, steps, entries
            )
            s_re, s_im = _transfer(fx, fy, ctf[p, k], along_x, along_y)
            m_re, m_im = s_re * v_re - s_im * v_im, s_re * v_im + s_im * v_re
            # −p × ∂V̂/∂p
            g_re, g_im = pz * y_re - py * z_re, pz * y_im - py * z_im
            j_re[0], j_im[0] = s_re * g_re - s_im * g_im, s_re * g_im + s_im * g_re
            g_re, g_im = px * z_re - pz * x_re, px * z_im - pz * x_im
            j_re[1], j_im[1] = s_re * g_re - s_im * g_im, s_re * g_im + s_im * g_re
            g_re, g_im = py * x_re - px * y_re, py * x_im - px * y_im
            j_re[2], j_im[2] = s_re * g_re - s_im * g_im, s_re * g_im + s_im * g_re
            j_re[3], j_im[3] = -per_px * fx * m_im, per_px * fx * m_re
            j_re[4], j_im[4] = -per_px * fy * m_im, per_px * fy * m_re
            r_re, r_im = data[p, k, 0] - m_re, data[p, k, 1] - m_im
            out[p, 0] += (data[p, k, 0] + r_re) * m_re + (data[p, k, 1] + r_im) * m_im
            place = 6
            for a in range(5):
                out[p, 1 + a] += 2 * (j_re[a] * r_re + j_im[a] * r_im)
                for b in range(a + 1):
                    out[p, place] += 2 * (j_re[a] * j_re[b] + j_im[a] * j_im[b])
                    place += 1


@compiled(fastmath=FAST)
def _spread(
    frequencies: Any, image: Any, data: Any, ctf: Any, share: Any, rotations: Any, shifts: Any, grid: Any, weights: Any,
    values: Any, first_plane: int, end_plane: int, per_px: Any,
    width: Any, side: int, origin: Any, steps: Any, entries: Any,
) -> None:  # fmt: skip
    reach = _reach(frequencies)
    # Poses of one image that follow each other are mostly near each other: taken frequency by frequency they add to
    # grid points that are in the cache already.
    shape = MOST_TOGETHER, 2 * reach + 1, 2
    along_x, along_y = np.empty(shape, F32), np.empty(shape, F32)
    first = 0
    while first < len(rotations):
        i, end = image[first], first
        while end < len(rotations) and end - first < MOST_TOGETHER and image[end] == i:
            _factors(shifts[end, 0], per_px, reach, along_x[end - first])
            _factors(shifts[end, 1], per_px, reach, along_y[end - first])
            end += 1
        for k in range(len(frequencies)):
            fx, fy = frequencies[k, 0], frequencies[k, 1]
            y_re, y_im = data[i, k, 0], data[i, k, 1]
            for p in range(first, end):
                px, py, pz = _point(fx, fy, rotations[p])
                s_re, s_im = _transfer(fx, fy, share[p] * ctf[i, k], along_x[p - first], along_y[p - first])
                re, im = s_re * y_re + s_im * y_im, s_re * y_im - s_im * y_re
                add_at(
                    px, py, pz, re, im, share[p] * ctf[i, k] * ctf[i, k], grid, weights, first_plane, end_plane,
                    values, width, side, origin, steps, entries,
                )  # fmt: skip
        first = end
