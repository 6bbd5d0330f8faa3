"""Sums of a grid under a window about all frequencies of slices at fixed rotations, and their exact transpose.

Compiled for the CPU in single precision, as one sweep that keeps nothing. It computes where each frequency lies, a
block at a time, because reading that from memory would take longer.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hoarfrost.maths.compiled import F32, FAST, arrays, compiled
from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.nufft.cpu.rows import add_rows, sum_rows
from hoarfrost.nufft.cpu.window_table import BLOCK, find_places, find_points, new_places, window_table
from hoarfrost.nufft.window import WindowedGrid
from hoarfrost.parallel.threads import cores, each

# Parts of the slices for each core.
PIECES = 4


class _Slices(NamedTuple):
    """Arrays of the frequencies (K, 2) and rotations (n, 3, 3) of slices."""

    frequencies: Any
    rotations: Any


class SliceSums:
    """As `model.slices.torch.SliceSums`. No window may reach beyond the grid."""

    def __init__(self, disc: FourierDisc, rotations: Tensor, grid: WindowedGrid, like: Tensor) -> None:
        assert grid.holds(disc.r_max)
        self._r_max, self._n = disc.r_max, len(rotations)
        numbers = disc.coordinates.to(like), rotations.to("cpu", like.dtype).contiguous()
        self._slices, self._table = _Slices(*arrays(*numbers)), window_table(grid)

    def interpolate(self, grid: Tensor) -> Tensor:
        """Sums (n, K, 2) of pairs on the grid, (side³, 2)."""
        n, values = self._n, grid.contiguous().numpy()
        out = grid.new_empty(n, len(self._slices.frequencies), 2)
        step = max(1, math.ceil(n / (PIECES * cores())))

        def fill(first: int) -> None:
            some = slice(first, first + step)
            of_some = self._slices._replace(rotations=self._slices.rotations[some])
            _sum(of_some, values, self._table, out[some].numpy())

        each(fill, range(0, n, step), grid.device)
        return out

    def spread(self, values: Tensor | None, weights: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The transpose of pairs (n, K, 2) and numbers (n, K), or one of them: on the grid, (side³, 2), (side³,)."""
        size = self._table.side**3
        grids = None if values is None else torch.zeros(size, 2), None if weights is None else torch.zeros(size)
        given = [None if part is None else part.detach().contiguous().numpy() for part in (values, weights)]
        onto = tuple(None if grid is None else grid.numpy() for grid in grids)

        def add_to(planes: tuple[int, int]) -> None:
            _spread(self._slices, *given, onto, self._table, planes)

        each(add_to, self._table.slabs(self._r_max, cores()), torch.device("cpu"))
        return grids


@compiled(fastmath=FAST)
def _sum(slices: Any, grid: Any, table: Any, out: Any) -> None:
    frequencies, rotations = slices.frequencies, slices.rotations
    points, places = np.empty((3, BLOCK), F32), new_places()
    start, entry = places
    for p in range(len(rotations)):
        for begin in range(0, len(frequencies), BLOCK):
            some = frequencies[begin : begin + BLOCK]
            find_points(some, rotations[p], points)
            find_places(points, len(some), table, places)
            for j in range(len(some)):
                re, im = sum_rows(grid, start[j], table, (entry[0, j], entry[1, j], entry[2, j]))
                out[p, begin + j, 0], out[p, begin + j, 1] = re, im


@compiled(fastmath=FAST)
def _spread(slices: Any, values: Any, weights: Any, grids: Any, table: Any, planes: tuple[int, int]) -> None:
    """Add to the planes z of `planes` (first, end) only, so that calls for other planes can run at the same time."""
    frequencies, rotations = slices.frequencies, slices.rotations
    points, places = np.empty((3, BLOCK), F32), new_places()
    start, entry = places
    plane = table.side * table.side
    for p in range(len(rotations)):
        for begin in range(0, len(frequencies), BLOCK):
            some = frequencies[begin : begin + BLOCK]
            find_points(some, rotations[p], points)
            find_places(points, len(some), table, places)
            for j in range(len(some)):
                k, z = begin + j, start[j] // plane
                for step in range(len(table.width)):
                    if planes[0] <= z + step < planes[1]:
                        along_z, place = table.values[entry[2, j], step], start[j] + step * plane
                        xy = entry[0, j], entry[1, j]
                        if values is not None:
                            number = along_z * values[p, k, 0], along_z * values[p, k, 1]
                            add_rows(grids[0], place, table, xy, number)
                        if weights is not None:
                            add_rows(grids[1], place, table, xy, (along_z * weights[p, k],))
