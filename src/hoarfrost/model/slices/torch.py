"""Sums of a grid under a window about all frequencies of slices at fixed rotations, and their exact transpose.

By torch, in any precision and on any device; windows may wrap around the grid.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.nufft.window import WindowedGrid

# Points whose windows are multiplied out at a time: few enough for a CPU's cache; many on a GPU, where calls are dear.
POINTS_PER_EXPANSION, POINTS_PER_EXPANSION_ON_GPU = 1 << 14, 1 << 20
# Products of windows are kept where there are so few, 50 MB of them in float64: making them takes two thirds of a sum.
MOST_PRODUCTS_KEPT = 1 << 22


class SliceSums:
    """Of slices at `rotations` (n, 3, 3) on a grid, for numbers like `like`.

    Of many points only weights along each axis are kept; they are multiplied out for some points at a time. Points are
    visited in the order of the grid, so that the cache holds what the next one needs.
    """

    def __init__(self, disc: FourierDisc, rotations: Tensor, grid: WindowedGrid, like: Tensor) -> None:
        plane = disc.coordinates.to(torch.float64)
        points = torch.einsum("kc,ncx->nkx", plane, rotations.to("cpu", torch.float64)[:, :2, :])
        points = (points.reshape(-1, 3) * grid.steps_per_pixel).to(like)
        self._shape, self._side, device = (len(rotations), disc.size), grid.side, like.device
        n = len(points)
        self._at_once = POINTS_PER_EXPANSION if device.type == "cpu" else POINTS_PER_EXPANSION_ON_GPU
        self._first = torch.empty(n, 3, dtype=torch.int16, device=device)
        self._weights = points.new_empty(n, 3, grid.window.width)
        position = (points + grid.side // 2).to(torch.int32)
        cell = (position[:, 2] * grid.side + position[:, 1]) * grid.side + position[:, 0]
        self._order = torch.argsort(cell).to(torch.int32)
        del position, cell
        for chunk in self._chunks():
            self._first[chunk], self._weights[chunk] = _taps_along(points[self._order[chunk]], grid)
        is_small = n * grid.window.width**3 <= MOST_PRODUCTS_KEPT
        self._kept = {chunk.start: self._multiplied_out(chunk) for chunk in self._chunks()} if is_small else {}

    def interpolate(self, grid: Tensor) -> Tensor:
        """Sums (n, K, 2) of pairs on the grid, (side³, 2)."""
        values = grid.new_empty(len(self._order), grid.shape[1])
        for chunk in self._chunks():
            indices, weights = self._taps(chunk)
            sums = torch.nn.functional.embedding_bag(indices, grid, per_sample_weights=weights, mode="sum")
            values[self._order[chunk]] = sums
        return values.view(*self._shape, -1)

    def spread(self, values: Tensor | None, weights: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The transpose of pairs (n, K, 2) and numbers (n, K), or one of them: on the grid, (side³, 2), (side³,)."""
        pairs = [] if values is None else list(values.reshape(-1, 2).unbind(1))
        columns = pairs if weights is None else [*pairs, weights.reshape(-1)]
        table = self._weights.new_zeros(len(columns), self._side**3)
        for chunk in self._chunks():
            indices, taps = self._taps(chunk)
            flat, order = indices.flatten(), self._order[chunk]
            for row, column in zip(table, columns, strict=True):
                row.index_add_(0, flat, (column[order].unsqueeze(1) * taps).flatten())
        return table[:2].T.contiguous() if pairs else None, None if weights is None else table[-1]

    def _taps(self, chunk: slice) -> tuple[Tensor, Tensor]:
        kept = self._kept.get(chunk.start)
        return self._multiplied_out(chunk) if kept is None else kept

    def _multiplied_out(self, chunk: slice) -> tuple[Tensor, Tensor]:
        return _outer(self._first[chunk], self._weights[chunk], self._side)

    def _chunks(self) -> Iterator[slice]:
        for start in range(0, len(self._order), self._at_once):
            yield slice(start, start + self._at_once)


def _taps_along(points: Tensor, grid: WindowedGrid) -> tuple[Tensor, Tensor]:
    """The first grid index (n, 3) int32 and the window's weights (n, 3, w) along each axis around points (n, 3)."""
    window = grid.window
    position = points + grid.side // 2
    first = torch.ceil(position - window.width / 2)
    offsets = position.unsqueeze(-1) - first.unsqueeze(-1) - torch.arange(window.width, device=points.device)
    return first.to(torch.int32), window(offsets)


def _outer(first: Tensor, weights: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Flat indices int32 and weights, (n, w³) each, from those along the axes."""
    steps = torch.arange(weights.shape[2], dtype=torch.int32, device=weights.device)
    wx, wy, wz = weights.unbind(1)
    ix, iy, iz = ((first.to(torch.int32).unsqueeze(-1) + steps) % side).unbind(1)
    product = wz[:, :, None, None] * wy[:, None, :, None] * wx[:, None, None, :]
    indices = (iz[:, :, None, None] * side + iy[:, None, :, None]) * side + ix[:, None, None, :]
    return indices.flatten(1), product.flatten(1)
