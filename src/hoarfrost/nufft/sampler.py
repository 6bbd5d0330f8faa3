"""The Fourier transform of a volume at any frequencies, off the grid.

The same non-uniform FFT as `model.slices.operator`, for frequencies that change from call to call: `WindowTaps` finds
the grid points around each and their weights. On the CPU sums under the window are compiled (`nufft.cpu`),
five times faster than by torch; elsewhere torch does them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hoarfrost.maths.compiled import is_compiled
from hoarfrost.maths.fourier import padded_fft3_centred
from hoarfrost.nufft.cpu.window_table import TABLE_SIZE, WindowTable, sum_about, tabulate
from hoarfrost.nufft.window import KaiserBessel

POINTS_PER_CHUNK = 1 << 14
# So that rounding takes none away that is at the reach itself.
KNOWN_BEYOND_REACH = 0.01


class WindowTaps:
    """Flat indices and weights of the w³ points around frequencies, on a cubic grid of `grid_box` points an axis.

    `steps_per_pixel` is the number of grid steps in a Fourier pixel. Frequencies must lie so far inside the grid that
    their windows do: nothing wraps around.
    """

    def __init__(
        self,
        grid_box: int,
        steps_per_pixel: float,
        window: KaiserBessel,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.side = grid_box
        self._origin = grid_box // 2
        self._steps_per_pixel = steps_per_pixel
        self._width = width = window.width
        self._entries = TABLE_SIZE // width
        values, slopes = tabulate(window)
        self._log_window = values.log().to(device, torch.float32)
        self._relative_slope = (-steps_per_pixel * slopes / values).to(device, torch.float32)
        self.table = WindowTable.of(window, grid_box, steps_per_pixel)
        # A product of three windows is the exponential of a sum, and the sum a matrix product: three times faster than
        # broadcasting over axes of a few numbers. Columns are taps, x fastest; rows the taps along x, y and z.
        tap = torch.arange(width**3)
        along = torch.stack([tap % width, tap // width % width, tap // width**2])
        chosen = along.unsqueeze(1) == torch.arange(width).unsqueeze(1)
        self._sum_of_axes = chosen.flatten(0, 1).to(device, torch.float32)
        self._along = along.to(device)
        flat = along[0] + self.side * (along[1] + self.side * along[2])
        self._index_steps = flat.to(device, torch.int32)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Indices int32 and weights float32, (m, w³) each, for points (m, 3), (x, y, z) in Fourier pixels."""
        first, entry = self._first(points)
        log_windows = torch.nn.functional.embedding(entry, self._log_window).flatten(1)
        x, y, z = first.to(torch.int32).unbind(1)
        indices = ((z * self.side + y) * self.side + x).unsqueeze(1) + self._index_steps
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
        position = points * self._steps_per_pixel + self._origin
        first = torch.ceil(position - self._width / 2)
        entry = ((first - position) * self._entries + (self._width / 2 * self._entries + 0.5)).to(torch.int32)
        return first, entry


class SpectrumSampler:
    """V̂(p) of real volumes (c, n, n, n) at arbitrary p, by a non-uniform FFT without an adjoint.

    `width` and `oversampling` are those of the Kaiser–Bessel window. On white noise over the whole box, the worst case,
    the error is 8e-4 of the root mean square with the defaults, 1e-4 with a width of 5, 5e-5 with 6, 5e-2 with
    width 2 and oversampling 3. Computes in complex64. Where no component of p goes beyond ± `reach` Fourier pixels, the
    grid is kept no further: a third of it, for a band limit, is found sooner in the processor's caches.
    """

    def __init__(self, volumes: Tensor, *, width: int = 4, oversampling: int = 2, reach: float = math.inf) -> None:
        self.box = volumes.shape[-1]
        self._known_to = min(self.box / 2, reach + KNOWN_BEYOND_REACH)
        grid_box = oversampling * self.box
        window = KaiserBessel(width, oversampling)
        axis = (torch.arange(self.box, dtype=torch.float64) - self.box // 2) / grid_box
        gain = (1 / window.transform(axis)).to(volumes.device, torch.float32)
        gain3 = gain[:, None, None] * gain[None, :, None] * gain[None, None, :]
        # The grid is periodic; a margin of copies saves wrapping every index.
        half = min(grid_box // 2, math.ceil(oversampling * self._known_to)) + width
        around = torch.arange(grid_box // 2 - half, grid_box // 2 + half + 1, device=volumes.device) % grid_box
        self.grid = torch.empty(len(around) ** 3, 2 * len(volumes), device=volumes.device)
        for c, volume in enumerate(volumes):
            grid = padded_fft3_centred(volume * gain3, grid_box).to(torch.complex64)
            padded = torch.view_as_real(grid[around][:, around][:, :, around])
            self.grid[:, 2 * c : 2 * c + 2] = padded.view(-1, 2)
        self._taps = WindowTaps(len(around), oversampling, window, device=volumes.device)

    @property
    def table(self) -> WindowTable:
        """Where points lie on `grid` (side³, 2 c), and the window to sum it under."""
        return self._taps.table

    def __call__(self, points: Tensor) -> Tensor:
        """V̂ at points (m, 3), (x, y, z) in Fourier pixels of the volumes' box: complex64 (m, c).

        Zero where a component of p reaches the box's Nyquist frequency, beyond which nothing is known.
        """
        values = torch.empty(len(points), self.grid.shape[1], device=points.device)
        if is_compiled(points) and self.grid.shape[1] == 2:
            sum_about(points.contiguous(), self.grid, self._taps.table, self._known_to, values)
            return torch.view_as_complex(values.view(len(points), -1, 2))
        for start in range(0, len(points), POINTS_PER_CHUNK):
            chunk = points[start : start + POINTS_PER_CHUNK]
            known = chunk.abs().amax(dim=-1, keepdim=True) < self._known_to
            indices, weights = self._taps(chunk * known)
            torch.mul(self._sums(indices, weights), known, out=values[start : start + POINTS_PER_CHUNK])
        return torch.view_as_complex(values.view(len(points), -1, 2))

    def expand(self, points: Tensor) -> Tensor:
        """V̂ of one volume at points (m, 3) and its derivatives by x, y and z: complex64 (m, 4).

        They are the derivatives of what interpolation gives, so with it they climb to its maxima. By torch: on the CPU
        poses are expanded by `model.pose_kernel`.
        """
        values = torch.empty(len(points), 4, 2, device=points.device)
        for start in range(0, len(points), POINTS_PER_CHUNK):
            chunk = points[start : start + POINTS_PER_CHUNK]
            known = chunk.abs().amax(dim=-1, keepdim=True) < self._known_to
            indices, weights = self._taps(chunk * known)
            every = (weights, *self._taps.slopes(chunk * known, weights))
            sums = torch.stack([self._sums(indices, each) * known for each in every], dim=1)
            values[start : start + POINTS_PER_CHUNK] = sums
        return torch.view_as_complex(values)

    def _sums(self, indices: Tensor, weights: Tensor) -> Tensor:
        # An embedding bag is a weighted sum of rows of a table, which is just what is wanted, and fast.
        return torch.nn.functional.embedding_bag(indices, self.grid, per_sample_weights=weights, mode="sum")
