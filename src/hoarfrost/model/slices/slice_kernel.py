"""Sums of a grid under a window about all frequencies of many slices, and their transpose, in one sweep, on the CPU.

Where each frequency lies is found on the way, a block at a time: that takes less time than to read it from memory.
Compiled by Numba on first use; tensors are float32 on the CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from hoarfrost.maths.compiled import F32, FAST, arrays, compiled
from hoarfrost.nufft.cpu.rows import add_rows, sum_rows
from hoarfrost.nufft.cpu.window_table import BLOCK, WindowTable, find_places, find_points, new_places


def sum_slices(frequencies: Tensor, rotations: Tensor, grid: Tensor, table: WindowTable, out: Tensor) -> None:
    """Fill `out` (n, K, 2) with the sums of `grid` (side³, 2) about Rᵀ(kx, ky, 0).

    `frequencies` are (K, 2), `rotations` (n, 3, 3); no window may reach beyond the grid.
    """
    _sum(*arrays(frequencies, rotations, grid, table.values, out), *table.scalars())


def spread_slices(
    frequencies: Tensor, rotations: Tensor, values: Tensor | None, weights: Tensor | None, table: WindowTable,
    grids: tuple[Tensor | None, Tensor | None], planes: tuple[int, int],
) -> None:  # fmt: skip
    """The transpose: add `values` (n, K, 2) and `weights` (n, K), or one of them, to grids (side³, 2) and (side³,).

    Only planes of constant z are added to, from one to before another: calls for other planes can go on at the same
    time.
    """
    given = [None if part is None else part.detach().numpy() for part in (values, weights, *grids)]
    _spread(*arrays(frequencies, rotations), *given, *arrays(table.values), *planes, *table.scalars())


@compiled(fastmath=FAST)
def _sum(
    frequencies: Any, rotations: Any, grid: Any, window: Any, out: Any,
    width: Any, side: int, origin: Any, steps: Any, entries: Any,
) -> None:  # fmt: skip
    points, places = np.empty((3, BLOCK), F32), new_places()
    start, entry = places
    for p in range(len(rotations)):
        for begin in range(0, len(frequencies), BLOCK):
            some = frequencies[begin : begin + BLOCK]
            find_points(some, rotations[p], points)
            find_places(points, len(some), places, width, side, origin, steps, entries)
            for j in range(len(some)):
                re, im = sum_rows(grid, start[j], side, window, entry[0, j], entry[1, j], entry[2, j], width)
                out[p, begin + j, 0], out[p, begin + j, 1] = re, im


@compiled(fastmath=FAST)
def _spread(
    frequencies: Any, rotations: Any, values: Any, weights: Any, grid: Any, weight_grid: Any, window: Any,
    first_plane: int, end_plane: int, width: Any, side: int, origin: Any, steps: Any, entries: Any,
) -> None:  # fmt: skip
    points, places = np.empty((3, BLOCK), F32), new_places()
    start, entry = places
    plane = side * side
    for p in range(len(rotations)):
        for begin in range(0, len(frequencies), BLOCK):
            some = frequencies[begin : begin + BLOCK]
            find_points(some, rotations[p], points)
            find_places(points, len(some), places, width, side, origin, steps, entries)
            for j in range(len(some)):
                k, z = begin + j, start[j] // plane
                for step in range(len(width)):
                    if first_plane <= z + step < end_plane:
                        along_z, place = window[entry[2, j], step], start[j] + step * plane
                        if values is not None:
                            number = along_z * values[p, k, 0], along_z * values[p, k, 1]
                            add_rows(grid, place, side, window, entry[0, j], entry[1, j], number, width)
                        if weights is not None:
                            one = (along_z * weights[p, k],)
                            add_rows(weight_grid, place, side, window, entry[0, j], entry[1, j], one, width)
