"""A grid summed under a window about each of many points, or numbers added to it there: one sweep, on the CPU.

Done by torch, indices and weights of the w³ grid points about each point are written to memory and read back, which
takes longer than the sums. Compiled by Numba on first use; tensors are float32 on the CPU.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from hoarfrost.model.compiled import F32, FAST, arrays, compiled

ZERO, HALF = F32(0), F32(0.5)


class WindowTable(NamedTuple):
    """A window by how far the first of its w taps is off, and where points lie on the grid.

    `values` and `slopes` (entries + 1, w): of the window, and of its derivative by the point's place in Fourier pixels.
    A point p lies at p · `steps_per_pixel` + `origin` on a grid of `side` points an axis.
    """

    values: Tensor
    slopes: Tensor
    side: int
    origin: int
    steps_per_pixel: float

    def scalars(self) -> tuple[Any, ...]:
        """What compiled code is told beside the tables, w as so many numbers: it is made for each w."""
        width = tuple(range(self.values.shape[1]))
        return width, self.side, F32(self.origin), F32(self.steps_per_pixel), F32(len(self.values) - 1)


def sum_about(points: Tensor, grid: Tensor, table: WindowTable, half_box: float, out: Tensor) -> None:
    """Fill `out` (m, 2) with the sums of `grid` (side³, 2) about points (m, 3), zero where one reaches ± half_box."""
    _sum(*arrays(points, grid, table.values, out), *table.scalars(), F32(half_box))


@compiled(fastmath=FAST, inline="always")
def _tap(position: Any, width: Any, entries: Any) -> tuple[Any, Any]:
    """The first grid point under the window, and the table's entry for it."""
    half_width = F32(HALF * F32(len(width)))
    first = np.ceil(position - half_width)
    return np.int64(first), np.int64((first - position) * entries + (half_width * entries + HALF))


@compiled(fastmath=FAST, inline="always")
def sum_at(
    px: Any, py: Any, pz: Any, grid: Any, values: Any, width: Any, side: int, origin: Any, steps: Any, entries: Any
) -> tuple[Any, Any]:
    """The sum about one point: real and imaginary part."""
    x, ex = _tap(px * steps + origin, width, entries)
    y, ey = _tap(py * steps + origin, width, entries)
    z, ez = _tap(pz * steps + origin, width, entries)
    re = im = ZERO
    for c in range(len(width)):
        plane_re = plane_im = ZERO
        for b in range(len(width)):
            row = ((z + c) * side + y + b) * side + x
            row_re = row_im = ZERO
            for a in range(len(width)):
                row_re += values[ex, a] * grid[row + a, 0]
                row_im += values[ex, a] * grid[row + a, 1]
            plane_re += values[ey, b] * row_re
            plane_im += values[ey, b] * row_im
        re += values[ez, c] * plane_re
        im += values[ez, c] * plane_im
    return re, im


@compiled(fastmath=FAST, inline="always")
def expand_at(
    px: Any, py: Any, pz: Any, grid: Any, values: Any, slopes: Any,
    width: Any, side: int, origin: Any, steps: Any, entries: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The sum about one point and its derivatives by x, y and z: real and imaginary part of each in turn."""
    x, ex = _tap(px * steps + origin, width, entries)
    y, ey = _tap(py * steps + origin, width, entries)
    z, ez = _tap(pz * steps + origin, width, entries)
    # The sum over all, over a plane, over a row; dx, dy, dz with the slope of the window along that axis.
    re = im = dx_re = dx_im = dy_re = dy_im = dz_re = dz_im = ZERO
    for c in range(len(width)):
        plane_re = plane_im = plane_dx_re = plane_dx_im = plane_dy_re = plane_dy_im = ZERO
        for b in range(len(width)):
            row = ((z + c) * side + y + b) * side + x
            row_re = row_im = row_dx_re = row_dx_im = ZERO
            for a in range(len(width)):
                grid_re, grid_im = grid[row + a, 0], grid[row + a, 1]
                value, slope = values[ex, a], slopes[ex, a]
                row_re += value * grid_re
                row_im += value * grid_im
                row_dx_re += slope * grid_re
                row_dx_im += slope * grid_im
            value, slope = values[ey, b], slopes[ey, b]
            plane_re += value * row_re
            plane_im += value * row_im
            plane_dx_re += value * row_dx_re
            plane_dx_im += value * row_dx_im
            plane_dy_re += slope * row_re
            plane_dy_im += slope * row_im
        value, slope = values[ez, c], slopes[ez, c]
        re += value * plane_re
        im += value * plane_im
        dx_re += value * plane_dx_re
        dx_im += value * plane_dx_im
        dy_re += value * plane_dy_re
        dy_im += value * plane_dy_im
        dz_re += slope * plane_re
        dz_im += slope * plane_im
    return re, im, dx_re, dx_im, dy_re, dy_im, dz_re, dz_im


@compiled(fastmath=FAST, inline="always")
def add_at(
    px: Any, py: Any, pz: Any, re: Any, im: Any, weight: Any, grid: Any, weights: Any, first_plane: int, end_plane: int,
    values: Any, width: Any, side: int, origin: Any, steps: Any, entries: Any,
) -> None:  # fmt: skip
    """Add a number to `grid` (side³, 2) and a weight to `weights` (side³,) under the window about a point.

    Only to planes of constant z from the first to before the end.
    """
    z, ez = _tap(pz * steps + origin, width, entries)
    if z >= end_plane or z + len(width) <= first_plane:
        return
    x, ex = _tap(px * steps + origin, width, entries)
    y, ey = _tap(py * steps + origin, width, entries)
    for c in range(len(width)):
        if first_plane <= z + c < end_plane:
            for b in range(len(width)):
                row = ((z + c) * side + y + b) * side + x
                both = values[ez, c] * values[ey, b]
                for a in range(len(width)):
                    each = both * values[ex, a]
                    grid[row + a, 0] += each * re
                    grid[row + a, 1] += each * im
                    weights[row + a] += each * weight


@compiled(fastmath=FAST)
def _sum(
    points: Any, grid: Any, values: Any, out: Any,
    width: Any, side: int, origin: Any, steps: Any, entries: Any, half_box: Any,
) -> None:  # fmt: skip
    for i in range(len(points)):
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        re = im = ZERO
        if max(abs(px), abs(py), abs(pz)) < half_box:
            re, im = sum_at(px, py, pz, grid, values, width, side, origin, steps, entries)
        out[i, 0] = re
        out[i, 1] = im
