"""Central slices of a volume, P_R V(k) = V̂(Rᵀ(kx, ky, 0)) / N, and their exact adjoint.

The volume's Fourier transform is wanted off the grid. It is computed as a non-uniform FFT: divide the volume by
the transform of a Kaiser–Bessel window, pad it, transform it, and sum each wanted point over the w³ nearest grid
points weighted by the window (Fessler & Sutton 2003; β after Beatty 2005). `docs/slices.md` has the measured error.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hoarfrost.fourier import FourierDisc, centred_window, fft3_centred, radius_grid
from hoarfrost.model.kaiser_bessel import KaiserBessel
from hoarfrost.model.slice_sums import CompiledSums, TorchSums
from hoarfrost.model.symmetry import PointGroup

# Of a grid that is transformed, a slab at a time.
POINTS_PER_SLAB = 1 << 20


class AdjointGrid:
    """From sums on the oversampled grid of frequencies back to space: what the adjoints of slice operators share.

    The grid is 2 · `oversampling` times the volume's box: twice because the normal operator's kernel reaches that far.
    Both results are averaged over the rotations of `group`, here where the fields are known beyond the volume's box.
    """

    def __init__(
        self,
        box: int,
        image_box: int,
        window: KaiserBessel,
        *,
        group: PointGroup | None = None,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        self.box, self.image_box, self._group = box, image_box, group or PointGroup()
        self.grid_box = round(2 * window.oversampling * box)
        axis = (torch.arange(2 * box, dtype=torch.float64) - box) / self.grid_box
        gain = (1 / window.transform(axis)).to(device=device, dtype=dtype)
        self.gain = gain[:, None, None] * gain[None, :, None] * gain[None, None, :]

    def volume(self, table: Tensor) -> Tensor:
        """Σ Pᵀ s, real (box, box, box), of slices' values spread onto the grid, complex (G³,), which is overwritten."""
        # A field that is to be turned has to be known beyond the volume's corners.
        kept = self.box if self._group.order == 1 else 2 * self.box
        values = table.view(self.grid_box, self.grid_box, self.grid_box)
        for axis in range(3):
            values = self._partial_transform(values, axis, kept)
        field = self._group.average(values.real * centred_window(self.gain, kept), self.box / 2)
        return centred_window(field, self.box) / self.image_box

    def kernel(self, table: Tensor) -> Tensor:
        """Kernel of Σ Pᵀ W P, real (2 box, 2 box, 2 box), of weights spread onto the grid, real (G³,).

        The real part of a transform of real numbers is even, so half of it is computed.
        """
        values = table.view(self.grid_box, self.grid_box, self.grid_box)
        for axis in range(3):
            values = self._partial_transform(values, axis, 2 * self.box)
        kernel = even_of_half(values.real) * self.gain
        return self._group.average(kernel, self.box) / (self.image_box**2)

    def _partial_transform(self, values: Tensor, axis: int, n: int) -> Tensor:
        """The inverse FFT along an axis, of which the n points about the origin are kept; of real values −n / 2 to 0.

        A slab at a time, the first axis of complex numbers in their own place: a grid takes hundreds of megabytes for
        a fine map, and this must not take as much again.
        """
        across = (axis + 1) % 3
        shape = list(values.shape)
        shape[axis] = n if values.is_complex() else n // 2 + 1
        if axis == 0 and values.is_complex():
            kept = values.narrow(axis, 0, n)
        else:
            kept = torch.empty(shape, dtype=self.gain.dtype.to_complex(), device=values.device)
        step = max(1, POINTS_PER_SLAB * values.shape[across] // values.numel())
        for first in range(0, values.shape[across], step):
            slab = values.narrow(across, first, min(step, values.shape[across] - first))
            target = kept.narrow(across, first, slab.shape[across])
            slab = torch.fft.ifftshift(slab, dim=axis)
            if values.is_complex():
                # The inverse FFT without its 1/G is the adjoint of the FFT.
                transform = torch.fft.ifft(slab, dim=axis, norm="forward")
                target.narrow(axis, 0, n // 2).copy_(transform.narrow(axis, self.grid_box - n // 2, n // 2))
                target.narrow(axis, n // 2, n - n // 2).copy_(transform.narrow(axis, 0, n - n // 2))
            else:
                target.copy_(torch.fft.rfft(slab, dim=axis).narrow(axis, 0, n // 2 + 1).flip(axis))
        return kept


class SliceOperator:
    """Volume → central slices at fixed rotations, the exact adjoint, and the kernel of the normal operator.

    The volume has `box` voxels over the same length as the images' `disc.box` pixels, so that both share their
    Fourier pixels; `box` need only exceed 2 r_max. `rotations` is (n, 3, 3), reference → image frame. With a `group`,
    adjoint and kernel are averaged over it, as if the slices were of the average of the volume.

    Raises ValueError where the volume's box cannot hold r_max.
    """

    def __init__(
        self,
        disc: FourierDisc,
        box: int,
        rotations: Tensor,
        *,
        kernel_width: int = 4,
        oversampling: int = 2,
        group: PointGroup | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if box <= 2 * disc.r_max:
            raise ValueError(f"a volume of {box} voxels cannot hold frequencies up to r_max {disc.r_max}")
        self.disc = disc
        self.box = box
        self.n_slices = rotations.shape[0]
        window = KaiserBessel(kernel_width, oversampling)
        self._grid = AdjointGrid(box, disc.box, window, group=group, device=device, dtype=dtype)
        self._grid_box, self._gain = self._grid.grid_box, self._grid.gain
        given = self._grid_box, 2.0 * oversampling, window
        self._sums: CompiledSums | TorchSums
        if CompiledSums.can_do(self._gain, disc.r_max, *given):
            self._sums = CompiledSums(disc, rotations, *given)
        else:
            self._sums = TorchSums(disc, rotations, *given, like=self._gain)

    def slices(self, volume: Tensor) -> Tensor:
        """P_R V for each rotation: complex (n, K) of a real volume (box, box, box)."""
        corrected = centred_window(volume, 2 * self.box) * self._gain
        spectrum = fft3_centred(centred_window(corrected, self._grid_box)) / self.disc.box
        return torch.view_as_complex(self._sums.interpolate(torch.view_as_real(spectrum).reshape(-1, 2)))

    def adjoint(self, slices: Tensor) -> Tensor:
        """Σ Pᵀ s over slices (n, K), adjoint of `slices` in Re Σ conj(a) b: real (box, box, box)."""
        table, _ = self._sums.spread(torch.view_as_real(slices), None)
        assert table is not None
        return self._grid.volume(torch.view_as_complex(table))

    def average(self, slices: Tensor, weights: Tensor, floor: Callable[[Tensor], Tensor]) -> Tensor:
        """Direct Fourier reconstruction, V̂ = N Σ φ s / (Σ φ w + ε) at each point of the grid: real (box, box, box).

        `slices` complex (n, K) already carry their weights, real (n, K). `floor` gives ε of the sums Σ φ w, real
        (G, G, G), which count a frequency and its opposite. Nothing outside the slices' disc is filled in.
        """
        table, weight = self._spread(slices, weights)
        cube = (self._grid_box,) * 3
        total, weight = table.view(cube), weight.view(cube)
        total, weight = total + _opposite(total).conj(), weight + _opposite(weight)
        divisor = weight + floor(weight)
        spectrum = torch.where(weight > 0, self.disc.box * total / divisor.clamp(min=1e-30), 0)
        axes = (-3, -2, -1)
        real = torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(spectrum, dim=axes), dim=axes).real, dim=axes)
        # An average over the window blurs V̂ as the window's transform, 1 at the origin, fades V.
        origin = self._gain.shape[0] // 2
        return centred_window(real, self.box) * centred_window(self._gain / self._gain[(origin,) * 3], self.box)

    def grid_radii(self) -> Tensor:
        """|k| in Fourier pixels of the points of the grid: real (G, G, G)."""
        return radius_grid(self._grid_box, 3, self._gain.device) * (self.box / self._grid_box)

    @property
    def sum_at_unit_density(self) -> float:
        """Σ φ w where the weights w have density 1 per cubic Fourier pixel."""
        origin = self._gain.shape[0] // 2
        return float((self.box / self._grid_box) ** 3 / self._gain[(origin,) * 3])

    def normal_kernel(self, weights: Tensor) -> Tensor:
        """Kernel h of Σ Pᵀ W P, a convolution h(x − x'): real (2 box, 2 box, 2 box), for real W (n, K).

        Sampling at frequencies p with weights w gives h(x) = Σ_p w_p cos(2π p·x / box) / N²; `apply_normal`
        applies it, gridding included.
        """
        _, table = self._sums.spread(None, weights)
        assert table is not None
        return self._grid.kernel(table)

    def adjoint_and_kernel(self, slices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """`adjoint` of the slices and `normal_kernel` of the weights, in one sweep."""
        table, weight = self._spread(slices, weights)
        return self._grid.volume(table), self._grid.kernel(weight)

    def _spread(self, slices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        table, weight = self._sums.spread(torch.view_as_real(slices), weights)
        assert table is not None
        assert weight is not None
        return torch.view_as_complex(table), weight


def _opposite(table: Tensor) -> Tensor:
    """Values at −k on a grid whose origin is in its middle."""
    return table.flip((0, 1, 2)).roll((1, 1, 1), (0, 1, 2))


def half_of_even(kernel: Tensor) -> Tensor:
    """The planes −n to 0 of an even kernel (2n, 2n, 2n) whose origin is in the middle: (n + 1, 2n, 2n).

    Where one index is −n its other half is lost. No two voxels of a map are that far apart.
    """
    return kernel[: len(kernel) // 2 + 1].clone()


def even_of_half(planes: Tensor) -> Tensor:
    """The kernel (2n, 2n, 2n) that these are half of."""
    mirrored = planes[1:-1].flip(0, 1, 2).roll((1, 1), (1, 2))
    return torch.cat([planes, mirrored])


def transform_normal_kernel(kernel: Tensor) -> Tensor:
    """Spectrum of a normal kernel (2n, 2n, 2n) for `apply_normal`: real (2n, 2n, n + 1)."""
    spectrum: Tensor = torch.fft.rfftn(torch.fft.ifftshift(kernel, dim=(-3, -2, -1)), dim=(-3, -2, -1)).real
    return spectrum


def apply_normal(kernel_spectrum: Tensor, volume: Tensor) -> Tensor:
    """Σ Pᵀ W P V as a convolution on the doubled box: real (n, n, n).

    An axis at a time, as most rows of the doubled box are zero or not asked for: three fifths of the arithmetic.
    """
    n = volume.shape[-1]
    spectrum = torch.fft.rfft(volume, n=2 * n, dim=-1)
    for axis in (-2, -3):
        spectrum = torch.fft.fft(spectrum, n=2 * n, dim=axis)
    spectrum *= kernel_spectrum
    for axis in (-3, -2):
        spectrum = torch.fft.ifft(spectrum, dim=axis).narrow(axis, 0, n)
    applied: Tensor = torch.fft.irfft(spectrum, n=2 * n, dim=-1)[..., :n]
    return applied
