"""Sums of a grid under a window about all frequencies of slices at fixed rotations, and their exact transpose.

On the CPU in single precision they are compiled (`slice_kernel`) and nothing is kept; elsewhere torch does them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hoarfrost.maths.compiled import is_compiled
from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.model.slices.slice_kernel import spread_slices, sum_slices
from hoarfrost.nufft.cpu.window_table import WindowTable
from hoarfrost.nufft.window import KaiserBessel
from hoarfrost.parallel.threads import each

# Points whose windows are multiplied out at a time, so that they stay in the cache; a GPU has the memory, and calls
# are dear there.
POINTS_PER_EXPANSION, POINTS_PER_EXPANSION_ON_GPU = 1 << 14, 1 << 20
# Of the slices, for each core.
PIECES = 4


class CompiledSums:
    """Of slices at `rotations` (n, 3, 3) on a grid (grid_box³), its origin at grid_box // 2: float32 on the CPU.

    `steps_per_pixel` is the number of grid steps in a Fourier pixel. No window may reach beyond the grid.
    """

    def __init__(
        self, disc: FourierDisc, rotations: Tensor, grid_box: int, steps_per_pixel: float, window: KaiserBessel
    ) -> None:
        self._r_max = disc.r_max
        self._frequencies = disc.coordinates.to(torch.float32)
        self._rotations = rotations.to("cpu", torch.float32).contiguous()
        self._table = WindowTable.of(window, grid_box, steps_per_pixel)

    @staticmethod
    def can_do(like: Tensor, r_max: float, grid_box: int, steps_per_pixel: float, window: KaiserBessel) -> bool:
        """Whether tensors are like those that code is compiled for, and all windows lie on the grid."""
        return is_compiled(like) and r_max * steps_per_pixel + window.width / 2 + 1 <= grid_box // 2

    def interpolate(self, grid: Tensor) -> Tensor:
        """Sums (n, K, 2) of pairs on the grid, (grid_box³, 2)."""
        n, grid = len(self._rotations), grid.contiguous()
        out = grid.new_empty(n, len(self._frequencies), 2)
        step = max(1, math.ceil(n / (PIECES * torch.get_num_threads())))

        def fill(first: int) -> None:
            some = slice(first, first + step)
            sum_slices(self._frequencies, self._rotations[some], grid, self._table, out[some])

        each(fill, range(0, n, step), grid.device)
        return out

    def spread(self, values: Tensor | None, weights: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The transpose of pairs (n, K, 2) and numbers (n, K), or one of them: on the grid, (grid_box³, 2), (…)."""
        size = self._table.side**3
        grid = None if values is None else torch.zeros(size, 2)
        weight_grid = None if weights is None else torch.zeros(size)
        values, weights = (None if part is None else part.contiguous() for part in (values, weights))

        def add_to(planes: tuple[int, int]) -> None:
            given = self._frequencies, self._rotations, values, weights
            spread_slices(*given, self._table, (grid, weight_grid), planes)

        each(add_to, self._table.slabs(self._r_max, torch.get_num_threads()), torch.device("cpu"))
        return grid, weight_grid


class TorchSums:
    """The same by torch, in any precision and on any device; windows may wrap around the grid.

    Weights along each axis are kept, a ninth of the memory of those of the w³ points for w = 3, and multiplied out for
    some points at a time. Points are visited in the order of the grid: sums that jump about in it take four times as
    long.
    """

    def __init__(
        self,
        disc: FourierDisc,
        rotations: Tensor,
        grid_box: int,
        steps_per_pixel: float,
        window: KaiserBessel,
        like: Tensor,
    ) -> None:
        plane = disc.coordinates.to(torch.float64)
        points = torch.einsum("kc,ncx->nkx", plane, rotations.to("cpu", torch.float64)[:, :2, :])
        points = (points.reshape(-1, 3) * steps_per_pixel).to(like)
        self._shape, self._grid_box, device = (len(rotations), disc.size), grid_box, like.device
        n = len(points)
        self._at_once = POINTS_PER_EXPANSION if device.type == "cpu" else POINTS_PER_EXPANSION_ON_GPU
        self._first = torch.empty(n, 3, dtype=torch.int16, device=device)
        self._weights = points.new_empty(n, 3, window.width)
        position = (points + grid_box // 2).to(torch.int32)
        cell = (position[:, 2] * grid_box + position[:, 1]) * grid_box + position[:, 0]
        self._order = torch.argsort(cell).to(torch.int32)
        del position, cell
        for chunk in self._chunks():
            self._first[chunk], self._weights[chunk] = _taps_along(points[self._order[chunk]], grid_box, window)

    def interpolate(self, grid: Tensor) -> Tensor:
        """As `CompiledSums`."""
        values = grid.new_empty(len(self._order), grid.shape[1])
        for chunk in self._chunks():
            indices, weights = self._taps(chunk)
            sums = torch.nn.functional.embedding_bag(indices, grid, per_sample_weights=weights, mode="sum")
            values[self._order[chunk]] = sums
        return values.view(*self._shape, -1)

    def spread(self, values: Tensor | None, weights: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """As `CompiledSums`."""
        pairs = [] if values is None else list(values.reshape(-1, 2).unbind(1))
        columns = pairs if weights is None else [*pairs, weights.reshape(-1)]
        table = self._weights.new_zeros(len(columns), self._grid_box**3)
        for chunk in self._chunks():
            indices, taps = self._taps(chunk)
            flat, order = indices.flatten(), self._order[chunk]
            for row, column in zip(table, columns, strict=True):
                row.index_add_(0, flat, (column[order].unsqueeze(1) * taps).flatten())
        return table[:2].T.contiguous() if pairs else None, None if weights is None else table[-1]

    def _taps(self, chunk: slice) -> tuple[Tensor, Tensor]:
        return _outer(self._first[chunk], self._weights[chunk], self._grid_box)

    def _chunks(self) -> Iterator[slice]:
        for start in range(0, len(self._order), self._at_once):
            yield slice(start, start + self._at_once)


def _taps_along(points: Tensor, grid_box: int, window: KaiserBessel) -> tuple[Tensor, Tensor]:
    """The first grid index (n, 3) int32 and the window's weights (n, 3, w) along each axis around points (n, 3)."""
    position = points + grid_box // 2
    first = torch.ceil(position - window.width / 2)
    offsets = position.unsqueeze(-1) - first.unsqueeze(-1) - torch.arange(window.width, device=points.device)
    return first.to(torch.int32), window(offsets)


def _outer(first: Tensor, weights: Tensor, grid_box: int) -> tuple[Tensor, Tensor]:
    """Flat indices int32 and weights, (n, w³) each, from those along the axes."""
    steps = torch.arange(weights.shape[2], dtype=torch.int32, device=weights.device)
    wx, wy, wz = weights.unbind(1)
    ix, iy, iz = ((first.to(torch.int32).unsqueeze(-1) + steps) % grid_box).unbind(1)
    product = wz[:, :, None, None] * wy[:, None, :, None] * wx[:, None, None, :]
    indices = (iz[:, :, None, None] * grid_box + iy[:, None, :, None]) * grid_box + ix[:, None, None, :]
    return indices.flatten(1), product.flatten(1)
