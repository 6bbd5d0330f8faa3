"""Where the window about each of many points begins on a grid, for code that is compiled for the CPU.

Points are taken a block at a time: places are found for a whole block, a vector of the processor at once, and then the
sums under the window have nothing to wait for but the grid.
"""

import itertools
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from hoarfrost.maths.compiled import F32, FAST, arrays, compiled
from hoarfrost.nufft.window import WindowedGrid, tabulate

HALF = F32(0.5)
# Points of a block: few enough for the first cache.
BLOCK = 64


class WindowTable(NamedTuple):
    """A window by how far the first of its w taps is off, and where points lie on the grid, as compiled code takes it.

    `values` and `slopes` (entries + 1, w) float32: of the window, and of its derivative by the point's place in Fourier
    pixels. `width` is w as so many numbers: code is compiled for each w. A point p lies at p · `steps_per_pixel` +
    `origin` on a grid of `side` points an axis.
    """

    values: Any
    slopes: Any
    width: tuple[int, ...]
    side: int
    origin: np.float32
    steps_per_pixel: np.float32
    entries: np.float32

    def slabs(self, r_max: float, n: int) -> list[tuple[int, int]]:
        """Planes of the grid, from one to before another, n times about as many points of random slices up to r_max.

        Every grid point gets its sums in the same order, however many slabs there are.
        """
        # Of slices at random orientations as many points lie at z as (r_max − |z|) says.
        share = torch.arange(1, n, dtype=torch.float64) / n
        z = torch.where(share < 0.5, (2 * share).sqrt() - 1, 1 - (2 - 2 * share).sqrt()) * r_max
        places = z * float(self.steps_per_pixel) + float(self.origin)
        return list(itertools.pairwise([0, *places.round().long().tolist(), self.side]))


@lru_cache(maxsize=16)
def window_table(grid: WindowedGrid) -> WindowTable:
    """The table of a grid's window."""
    values, slopes = tabulate(grid.window)
    of_values, of_slopes = arrays(values.float(), (-grid.steps_per_pixel * slopes).float())
    return WindowTable(
        of_values,
        of_slopes,
        width=tuple(range(grid.window.width)),
        side=grid.side,
        origin=F32(grid.side // 2),
        steps_per_pixel=F32(grid.steps_per_pixel),
        entries=F32(len(values) - 1),
    )


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
def find_places(points: Any, n: int, table: Any, places: tuple[Any, Any]) -> None:
    """Of n `points` (3, BLOCK): the numbers of the first grid points under the window, (BLOCK,), the first of `places`.

    The second, (3, BLOCK), are the table's entries for it along x, y and z.
    """
    first, entry = places
    side, origin, steps, entries = table.side, table.origin, table.steps_per_pixel, table.entries
    half_width = F32(HALF * F32(len(table.width)))
    for j in range(n):
        number: Any = 0
        # z comes first in the number.
        for axis in (2, 1, 0):
            position = points[axis, j] * steps + origin
            start = np.ceil(position - half_width)
            entry[axis, j] = np.int64((start - position) * entries + (half_width * entries + HALF))
            number = number * side + np.int64(start)
        first[j] = number
