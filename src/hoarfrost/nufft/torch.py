"""Sums of a grid under a window about any frequencies, by torch: in any precision and on any device."""

import torch
from torch import Tensor

from hoarfrost.nufft.window import TABLE_SIZE, WindowedGrid, tabulate

POINTS_PER_CHUNK = 1 << 14


class WindowTaps:
    """Flat indices and weights of the w³ points of a grid around frequencies.

    Frequencies must lie so far inside the grid that their windows do: nothing wraps around.
    """

    def __init__(self, grid: WindowedGrid, *, device: torch.device | str = "cpu") -> None:
        self.grid = grid
        width = grid.window.width
        self._entries = TABLE_SIZE // width
        values, slopes = tabulate(grid.window)
        self._log_window = values.log().to(device, torch.float32)
        self._relative_slope = (-grid.steps_per_pixel * slopes / values).to(device, torch.float32)
        # A product of three windows is the exponential of a sum, and the sum a matrix product: faster than broadcasting
        # over axes of a few numbers. Columns are taps, x fastest; rows the taps along x, y and z.
        tap = torch.arange(width**3)
        along = torch.stack([tap % width, tap // width % width, tap // width**2])
        chosen = along.unsqueeze(1) == torch.arange(width).unsqueeze(1)
        self._sum_of_axes = chosen.flatten(0, 1).to(device, torch.float32)
        self._along = along.to(device)
        flat = along[0] + grid.side * (along[1] + grid.side * along[2])
        self._index_steps = flat.to(device, torch.int32)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Indices int32 and weights float32, (m, w³) each, for points (m, 3), (x, y, z) in Fourier pixels."""
        first, entry = self._first(points)
        log_windows = torch.nn.functional.embedding(entry, self._log_window).flatten(1)
        x, y, z = first.to(torch.int32).unbind(1)
        indices = ((z * self.grid.side + y) * self.grid.side + x).unsqueeze(1) + self._index_steps
        return indices, (log_windows @ self._sum_of_axes).exp_()

    def slopes(self, points: Tensor, weights: Tensor) -> Tensor:
        """Derivatives of weights (m, w³) by x, y and z of their points (m, 3): (3, m, w³)."""
        relative = torch.nn.functional.embedding(self._first(points)[1], self._relative_slope)
        return torch.stack([weights * relative[:, axis, self._along[axis]] for axis in range(3)])

    def spread(self, points: Tensor, data: Tensor, weight: Tensor, grids: tuple[Tensor, Tensor]) -> None:
        """Add complex `data` and real `weight` (m,), under the window about points (m, 3), to `grids` (side³,)."""
        for first in range(0, len(points), POINTS_PER_CHUNK):
            chunk = slice(first, first + POINTS_PER_CHUNK)
            indices, taps = self(points[chunk])
            flat = indices.flatten()
            grids[0].index_add_(0, flat, (data[chunk, None] * taps).flatten())
            grids[1].index_add_(0, flat, (weight[chunk, None] * taps).flatten())

    def _first(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The first grid point under the window about each point, and the table's entry for it, by axis: (m, 3)."""
        half_width = self.grid.window.width / 2
        position = points * self.grid.steps_per_pixel + self.grid.side // 2
        first = torch.ceil(position - half_width)
        entry = ((first - position) * self._entries + (half_width * self._entries + 0.5)).to(torch.int32)
        return first, entry


def sum_about(points: Tensor, values: Tensor, taps: WindowTaps, known_to: float) -> Tensor:
    """Sums of `values` (side³, n) about points (m, 3): (m, n), zero where a component reaches ± known_to."""
    sums = values.new_empty(len(points), values.shape[1])
    for start in range(0, len(points), POINTS_PER_CHUNK):
        chunk = points[start : start + POINTS_PER_CHUNK]
        known = chunk.abs().amax(dim=-1, keepdim=True) < known_to
        torch.mul(weighted_rows(values, *taps(chunk * known)), known, out=sums[start : start + POINTS_PER_CHUNK])
    return sums


def expand_about(points: Tensor, values: Tensor, taps: WindowTaps, known_to: float) -> Tensor:
    """The same sums and their derivatives by x, y and z: (m, 4, n)."""
    sums = values.new_empty(len(points), 4, values.shape[1])
    for start in range(0, len(points), POINTS_PER_CHUNK):
        chunk = points[start : start + POINTS_PER_CHUNK]
        known = chunk.abs().amax(dim=-1, keepdim=True) < known_to
        indices, weights = taps(chunk * known)
        every = (weights, *taps.slopes(chunk * known, weights))
        parts = [weighted_rows(values, indices, each) * known for each in every]
        sums[start : start + POINTS_PER_CHUNK] = torch.stack(parts, dim=1)
    return sums


def weighted_rows(values: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows of `values` (N, n), of indices and weights (m, w³): (m, n)."""
    return torch.nn.functional.embedding_bag(indices, values, per_sample_weights=weights, mode="sum")
