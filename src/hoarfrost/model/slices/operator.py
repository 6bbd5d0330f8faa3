"""Central slices of a volume, P_R V(k) = V̂(Rᵀ(kx, ky, 0)) / N, and their exact adjoint.

The volume's Fourier transform is wanted off the grid. It is computed as a non-uniform FFT: divide the volume by
the transform of a Kaiser–Bessel window, pad it, transform it, and sum each wanted point over the w³ nearest grid
points weighted by the window (Fessler & Sutton 2003; β after Beatty 2005). `docs/slices.md` has the measured error.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hoarfrost.maths.compiled import is_compiled
from hoarfrost.maths.fourier import FourierDisc, centred_window, even_of_half, padded_fft3_centred, radius_grid
from hoarfrost.model.slices import cpu
from hoarfrost.model.slices import torch as by_torch
from hoarfrost.nufft.window import KaiserBessel, WindowedGrid
from hoarfrost.symmetry.point_group import PointGroup

# Points of a grid that are transformed at a time.
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
        """Σ Pᵀ s, real (box, box, box), of slices' values spread onto the grid, complex (G³,)."""
        # A field that is to be interpolated has to be known beyond the ball in the volume's box.
        room = self._group.room
        kept = self.box if room == 1 else 2 * math.ceil(room * self.box / 2)
        field = _as_stored(self._about_origin(table, kept)) * centred_window(self.gain, kept)
        return centred_window(self._group.average(field, self.box / 2), self.box) / self.image_box

    def kernel(self, table: Tensor) -> Tensor:
        """Kernel of Σ Pᵀ W P, real (2 box, 2 box, 2 box), of weights spread onto the grid, real (G³,).

        The real part of a transform of real numbers is even, so half of it is computed.
        """
        kernel = _as_stored(even_of_half(self._about_origin(table, 2 * self.box))) * self.gain
        return self._group.average(kernel, self.box, is_even=True) / (self.image_box**2)

    def _about_origin(self, table: Tensor, n: int) -> Tensor:
        """The real part of the inverse FFT, without its 1/G³, at the n points an axis about the origin, [x, y, z].

        Of real numbers, only those where x is −n / 2 to 0. FFTs run along the last axis, as memory does, which is
        fastest. They take a slab at a time, as a fine map's grid is too large to be copied whole.
        """
        side = self.grid_box
        values = table.view(side, side, side)
        step = max(1, POINTS_PER_SLAB // side**2)
        slabs = []
        for slab in torch.split(values, step):
            if slab.is_complex():
                along_x = _ifft_about_origin(slab, n)
            else:
                along_x = torch.fft.rfft(torch.fft.ifftshift(slab, dim=-1))[..., : n // 2 + 1].flip(-1)
            slabs.append(_ifft_about_origin(along_x.transpose(1, 2), n))
        return _ifft_about_origin(torch.cat(slabs).permute(1, 2, 0), n).real


def _as_stored(field: Tensor) -> Tensor:
    """[z, y, x] of [x, y, z]."""
    return field.permute(2, 1, 0).contiguous()


def _ifft_about_origin(values: Tensor, n: int) -> Tensor:
    """The inverse FFT along the last axis, without its 1/G so that it is the FFT's adjoint, at n points."""
    transform = torch.fft.ifft(torch.fft.ifftshift(values.contiguous(), dim=-1), norm="forward")
    return torch.cat([transform[..., values.shape[-1] - n // 2 :], transform[..., : n - n // 2]], dim=-1)


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
        self._sums = _sums_of(disc, rotations, WindowedGrid(self._grid_box, 2.0 * oversampling, window), self._gain)

    def slices(self, volume: Tensor) -> Tensor:
        """P_R V for each rotation: complex (n, K) of a real volume (box, box, box)."""
        corrected = volume * centred_window(self._gain, self.box)
        spectrum = padded_fft3_centred(corrected / self.disc.box, self._grid_box)
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


def _sums_of(
    disc: FourierDisc, rotations: Tensor, grid: WindowedGrid, like: Tensor
) -> cpu.SliceSums | by_torch.SliceSums:
    """What sums the grid about slices, for numbers like these."""
    kernels = cpu if is_compiled(like) and grid.holds(disc.r_max) else by_torch
    sums: cpu.SliceSums | by_torch.SliceSums = kernels.SliceSums(disc, rotations, grid, like)
    return sums


def _opposite(table: Tensor) -> Tensor:
    """Values at −k on a grid whose origin is in its middle."""
    return table.flip((0, 1, 2)).roll((1, 1, 1), (0, 1, 2))


def transform_normal_kernel(kernel: Tensor) -> Tensor:
    """Spectrum of a normal kernel (2n, 2n, 2n) for `apply_normal`: real (2n, 2n, n + 1)."""
    spectrum: Tensor = torch.fft.rfftn(torch.fft.ifftshift(kernel, dim=(-3, -2, -1)), dim=(-3, -2, -1)).real
    return spectrum


def apply_normal(kernel_spectrum: Tensor, volume: Tensor) -> Tensor:
    """Σ Pᵀ W P V as a convolution on the doubled box: real (n, n, n).

    It goes an axis at a time, and leaves out the rows of the doubled box that are zero or not asked for.
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
