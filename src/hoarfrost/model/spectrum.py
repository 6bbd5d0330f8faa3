"""The Fourier transform of a volume at any frequencies, off the grid, each used once.

The same non-uniform FFT as `hoarfrost.model.slices`, without the sparse matrix that pays only for frequencies that are
used again and again: `WindowTaps` finds the grid points around each frequency and their weights on the fly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hoarfrost.fourier import centred_window, fft3_centred
from hoarfrost.model.kaiser_bessel import KaiserBessel

POINTS_PER_CHUNK = 1 << 14
TABLE_SIZE = 61440  # a multiple of every width up to 6


class WindowTaps:
    """Flat indices and weights of the w³ points around frequencies, on a cubic grid of `grid_box` + 2 `margin` points.

    `steps_per_pixel` is the number of grid steps in a Fourier pixel. Frequencies must lie so far inside the grid that
    their windows do, the margin included: nothing wraps around.
    """

    def __init__(
        self,
        grid_box: int,
        steps_per_pixel: float,
        window: KaiserBessel,
        *,
        margin: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.side = grid_box + 2 * margin
        self._origin = grid_box // 2 + margin
        self._steps_per_pixel = steps_per_pixel
        self._width = width = window.width
        # The window's Bessel function would take most of the time, so its logarithm at the w taps is looked up by how
        # far the first of them is off: error 3e-5.
        self._entries = TABLE_SIZE // width
        offsets = torch.linspace(0, 1, self._entries + 1, dtype=torch.float64).unsqueeze(1) - width / 2
        steps = torch.arange(width, dtype=torch.float64)
        self._log_window = window(offsets + steps).log().to(device, torch.float32)
        # A product of three windows is the exponential of a sum, and the sum a matrix product: three times faster than
        # broadcasting over axes of a few numbers. Columns are taps, x fastest; rows the taps along x, y and z.
        tap = torch.arange(width**3)
        along = torch.stack([tap % width, tap // width % width, tap // width**2])
        chosen = along.unsqueeze(1) == torch.arange(width).unsqueeze(1)
        self._sum_of_axes = chosen.flatten(0, 1).to(device, torch.float32)
        flat = along[0] + self.side * (along[1] + self.side * along[2])
        self._index_steps = flat.to(device, torch.int32)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Indices int32 and weights float32, (m, w³) each, for points (m, 3), (x, y, z) in Fourier pixels."""
        position = points * self._steps_per_pixel + self._origin
        first = torch.ceil(position - self._width / 2)
        entry = ((first - position) * self._entries + (self._width / 2 * self._entries + 0.5)).to(torch.int32)
        log_windows = torch.nn.functional.embedding(entry, self._log_window).flatten(1)
        x, y, z = first.to(torch.int32).unbind(1)
        indices = ((z * self.side + y) * self.side + x).unsqueeze(1) + self._index_steps
        return indices, (log_windows @ self._sum_of_axes).exp_()


class SpectrumSampler:
    """V̂(p) of real volumes (c, n, n, n) at arbitrary p, by a non-uniform FFT without an adjoint.

    `width` and `oversampling` are those of the Kaiser–Bessel window. On white noise over the whole box, the worst case,
    the error is 8e-4 of the root mean square with the defaults, 1e-4 with a width of 5, 5e-5 with 6, 5e-2 with
    width 2 and oversampling 3. Computes in complex64.
    """

    def __init__(self, volumes: Tensor, *, width: int = 4, oversampling: int = 2) -> None:
        self.box = volumes.shape[-1]
        grid_box = oversampling * self.box
        window = KaiserBessel(width, oversampling)
        axis = (torch.arange(self.box, dtype=torch.float64) - self.box // 2) / grid_box
        gain = (1 / window.transform(axis)).to(volumes.device, torch.float32)
        gain3 = gain[:, None, None] * gain[None, :, None] * gain[None, None, :]
        # The grid is periodic; a margin of copies saves wrapping every index.
        around = torch.arange(-width, grid_box + width, device=volumes.device) % grid_box
        self._grid = torch.empty(len(around) ** 3, 2 * len(volumes), device=volumes.device)
        for c, volume in enumerate(volumes):
            grid = fft3_centred(centred_window(volume * gain3, grid_box)).to(torch.complex64)
            padded = torch.view_as_real(grid[around][:, around][:, :, around])
            self._grid[:, 2 * c : 2 * c + 2] = padded.view(-1, 2)
        self._taps = WindowTaps(grid_box, oversampling, window, margin=width, device=volumes.device)

    def __call__(self, points: Tensor) -> Tensor:
        """V̂ at points (m, 3), (x, y, z) in Fourier pixels of the volumes' box: complex64 (m, c).

        Zero where a component of p reaches the box's Nyquist frequency, beyond which nothing is known.
        """
        values = torch.empty(len(points), self._grid.shape[1], device=points.device)
        for start in range(0, len(points), POINTS_PER_CHUNK):
            chunk = points[start : start + POINTS_PER_CHUNK]
            known = chunk.abs().amax(dim=-1, keepdim=True) < self.box / 2
            indices, weights = self._taps(chunk * known)
            # An embedding bag is a weighted sum of rows of a table, which is just what is wanted, and fast.
            sums = torch.nn.functional.embedding_bag(indices, self._grid, per_sample_weights=weights, mode="sum")
            torch.mul(sums, known, out=values[start : start + POINTS_PER_CHUNK])
        return torch.view_as_complex(values.view(len(points), -1, 2))
