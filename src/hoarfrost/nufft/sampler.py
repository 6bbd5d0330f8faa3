"""The Fourier transform of a volume at any frequencies, off the grid.

The same non-uniform FFT as `model.slices.operator`, for frequencies that change from call to call. Sums under the
window are those of `nufft.cpu.sums` or of `nufft.torch`.
"""

import math

import torch
from torch import Tensor

from hoarfrost.maths.compiled import is_compiled
from hoarfrost.maths.fourier import centred_window
from hoarfrost.nufft import torch as by_torch
from hoarfrost.nufft.cpu import sums as by_cpu
from hoarfrost.nufft.window import KaiserBessel, WindowedGrid
from hoarfrost.parallel.threads import wide

# Fourier pixels by which more is known than asked for, so that rounding loses no point at the reach itself.
KNOWN_BEYOND_REACH = 0.01
# Points of a grid that are transformed at a time: a fine map's is too large to be copied whole.
POINTS_PER_SLAB = 1 << 20


class SpectrumSampler:
    """V̂(p) of real volumes (c, n, n, n) at arbitrary p, by a non-uniform FFT without an adjoint.

    `width` and `oversampling` are those of the Kaiser–Bessel window. On white noise over the whole box, the worst case,
    the error is 8e-4 of the root mean square with the defaults, 1e-4 with a width of 5, 5e-5 with 6, 5e-2 with
    width 2 and oversampling 3. Computes in complex64. Where no component of p goes beyond ± `reach` Fourier pixels, the
    grid is kept no further, so that more of it fits the processor's caches. It is coarser, with the same error, where
    volumes are taken for empty outside the `middle` of their box, so many voxels wide.
    """

    def __init__(
        self,
        volumes: Tensor,
        *,
        width: int = 4,
        oversampling: int = 2,
        reach: float = math.inf,
        middle: int | None = None,
    ) -> None:
        self.box, middle = volumes.shape[-1], middle or volumes.shape[-1]
        self._known_to = min(self.box / 2, reach + KNOWN_BEYOND_REACH)
        grid_box = oversampling * middle
        window = KaiserBessel(width, oversampling)
        axis = (torch.arange(middle, dtype=torch.float64) - middle // 2) / grid_box
        gain = (1 / window.transform(axis)).to(volumes.device, torch.float32)
        gain3 = gain[:, None, None] * gain[None, :, None] * gain[None, None, :]
        steps_per_pixel = grid_box / self.box
        # The grid is periodic; a margin of copies saves wrapping every index.
        half = min(grid_box // 2, math.ceil(steps_per_pixel * self._known_to)) + width
        around = torch.arange(grid_box // 2 - half, grid_box // 2 + half + 1, device=volumes.device) % grid_box
        values = torch.empty(*(len(around),) * 3, len(volumes), dtype=torch.complex64, device=volumes.device)
        with wide(grid_box**3):
            for c, volume in enumerate(volumes):
                inside = (centred_window(volume, middle) * gain3).to(torch.float32)
                _put_spectrum(inside, grid_box, around, values[..., c])
        self.values = torch.view_as_real(values).view(-1, 2 * len(volumes))
        self._taps = by_torch.WindowTaps(WindowedGrid(len(around), steps_per_pixel, window), device=volumes.device)
        self._sum_about = by_cpu.sum_about if is_compiled(self.values) else by_torch.sum_about

    @property
    def grid(self) -> WindowedGrid:
        """Where points lie among `values` (side³, 2 c), pairs for each volume."""
        return self._taps.grid

    def __call__(self, points: Tensor) -> Tensor:
        """V̂ at points (m, 3), (x, y, z) in Fourier pixels of the volumes' box: complex64 (m, c).

        Zero where a component of p reaches the box's Nyquist frequency, beyond which nothing is known.
        """
        sums = self._sum_about(points, self.values, self._taps, self._known_to)
        return torch.view_as_complex(sums.view(len(points), -1, 2))

    def expand(self, points: Tensor) -> Tensor:
        """V̂ of one volume at points (m, 3) and its derivatives by x, y and z: complex64 (m, 4).

        They are the derivatives of what interpolation gives, so with it they climb to its maxima. By torch: on the CPU
        poses are expanded by `model.few_poses.cpu`.
        """
        return torch.view_as_complex(by_torch.expand_about(points, self.values, self._taps, self._known_to))


def _put_spectrum(volume: Tensor, box: int, around: Tensor, out: Tensor) -> None:
    """The transform of a volume (n, n, n) zero-padded to `box`, of which `around` (m,) is wanted: `out` (m, m, m).

    The origin is at box // 2. FFTs go along the last axis, as memory runs, and leave out rows that are zero.
    """
    n, m = len(volume), len(around)
    # Where the wanted points are before the origin is moved to the middle.
    wanted = (around - box // 2) % box

    def transformed(rows: Tensor) -> Tensor:
        padded = torch.fft.ifftshift(centred_window(rows, box, dims=1), dim=-1)
        spectrum: Tensor = torch.fft.fft(padded).index_select(-1, wanted)
        return spectrum

    along_x_y = torch.empty(n, m, m, dtype=out.dtype, device=out.device)
    step = max(1, POINTS_PER_SLAB // (box * m))
    for z in range(0, n, step):
        along_x = transformed(volume[z : z + step])
        along_x_y[z : z + step] = transformed(along_x.transpose(1, 2)).transpose(1, 2)
    for y in range(0, m, step):
        out[:, y : y + step] = transformed(along_x_y[:, y : y + step].permute(1, 2, 0)).permute(2, 0, 1)
