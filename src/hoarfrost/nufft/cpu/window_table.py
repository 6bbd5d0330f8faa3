"""Where the window about each of many points begins on a grid, and sums of the grid under it: one sweep, on the CPU.

Done by torch, indices and weights of the w³ grid points about each point are written to memory and read back, which
takes longer than the sums. Points are taken a block at a time: places are found for a whole block, a vector of the
processor at once, and then the sums have nothing to wait for but the grid. Compiled by Numba on first use; tensors are
float32 on the CPU.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hoarfrost.maths.compiled import F32, FAST, arrays, compiled
from hoarfrost.nufft.cpu.rows import sum_rows
from hoarfrost.nufft.window import KaiserBessel

HALF = F32(0.5)
# Points of a block: what is found of them stays in the first cache.
BLOCK = 64
# A window's Bessel function would take most of the time, so the window is looked up.
TABLE_SIZE = 61440  # a multiple of every width up to 6


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

    @staticmethod
    def of(window: KaiserBessel, side: int, steps_per_pixel: float) -> WindowTable:
        """That of a window on a grid whose origin is in its middle."""
        values, slopes = tabulate(window)
        return WindowTable(values.float(), (-steps_per_pixel * slopes).float(), side, side // 2, steps_per_pixel)

    def slabs(self, r_max: float, n: int) -> list[tuple[int, int]]:
        """Planes of the grid, from one to before another, n times about as many points of random slices up to r_max.

        Every grid point gets its sums in the same order, however many slabs there are.
        """
        # Of slices at random orientations as many points lie at z as (r_max − |z|) says.
        share = torch.arange(1, n, dtype=torch.float64) / n
        z = torch.where(share < 0.5, (2 * share).sqrt() - 1, 1 - (2 - 2 * share).sqrt()) * r_max
        edges = [0, *(z * self.steps_per_pixel + self.origin).round().long().tolist(), self.side]
        return list(itertools.pairwise(edges))

    def scalars(self) -> tuple[Any, ...]:
        """What compiled code is told beside the tables, w as so many numbers: it is made for each w."""
        width = tuple(range(self.values.shape[1]))
        return width, self.side, F32(self.origin), F32(self.steps_per_pixel), F32(len(self.values) - 1)


@lru_cache(maxsize=16)
def tabulate(window: KaiserBessel) -> tuple[Tensor, Tensor]:
    """The window and its derivative at its taps, by how far the first one is off: float64 (entries + 1, w) each.

    The nearest entry is off by 3e-5 of the window at most.
    """
    first = torch.linspace(0, 1, TABLE_SIZE // window.width + 1, dtype=torch.float64).unsqueeze(1) - window.width / 2
    offsets = first + torch.arange(window.width, dtype=torch.float64)
    return window(offsets), window.slope(offsets)


def sum_about(points: Tensor, grid: Tensor, table: WindowTable, half_box: float, out: Tensor) -> None:
    """Fill `out` (m, 2) with the sums of `grid` (side³, 2) about points (m, 3), zero where one reaches ± half_box."""
    _sum(*arrays(points, grid, table.values, out), *table.scalars(), F32(half_box))


@compiled()
def new_places() -> tuple[Any, Any]:
    """Room for the places of a block: see `find_places`."""
    return np.empty(BLOCK, np.int64), np.empty((3, BLOCK), np.int64)


@compiled(fastmath=FAST, inline="always")
def find_points(frequencies: Any, turn: Any, points: Any) -> None:
    """Where the slice at a rotation samples V̂ for frequencies (n, 2) of the image: `points` (3, BLOCK)."""
    for axis in range(3):
        x, y = turn[0, axis], turn[1, axis]
        for j in range(len(frequencies)):
            points[axis, j] = frequencies[j, 0] * x + frequencies[j, 1] * y


@compiled(fastmath=FAST, inline="always")
def find_places(
    points: Any, n: int, places: tuple[Any, Any], width: Any, side: int, origin: Any, steps: Any, entries: Any
) -> None:
    """Of n `points` (3, BLOCK): the numbers of the first grid points under the window, (BLOCK,), the first of `places`.

    The second, (3, BLOCK), are the table's entries for it along x, y and z.
    """
    first, entry = places
    half_width = F32(HALF * F32(len(width)))
    for j in range(n):
        number: Any = 0
        # z comes first in the number.
        for axis in (2, 1, 0):
            position = points[axis, j] * steps + origin
            start = np.ceil(position - half_width)
            entry[axis, j] = np.int64((start - position) * entries + (half_width * entries + HALF))
            number = number * side + np.int64(start)
        first[j] = number


@compiled(fastmath=FAST)
def _sum(
    points: Any, grid: Any, values: Any, out: Any,
    width: Any, side: int, origin: Any, steps: Any, entries: Any, half_box: Any,
) -> None:  # fmt: skip
    block, places = np.empty((3, BLOCK), F32), new_places()
    first, entry = places
    for begin in range(0, len(points), BLOCK):
        n = min(BLOCK, len(points) - begin)
        for j in range(n):
            px, py, pz = points[begin + j, 0], points[begin + j, 1], points[begin + j, 2]
            is_known = max(abs(px), abs(py), abs(pz)) < half_box
            block[0, j], block[1, j], block[2, j] = (px, py, pz) if is_known else (HALF, HALF, HALF)
            out[begin + j, 0] = out[begin + j, 1] = F32(is_known)
        find_places(block, n, places, width, side, origin, steps, entries)
        for j in range(n):
            re, im = sum_rows(grid, first[j], side, values, entry[0, j], entry[1, j], entry[2, j], width)
            out[begin + j, 0] *= re
            out[begin + j, 1] *= im
