"""Central slices of a volume, P_R V(k) = V̂(Rᵀ(kx, ky, 0)) / N, and their exact adjoint.

The volume's Fourier transform is wanted off the grid. It is computed as a non-uniform FFT: divide the volume by
the transform of a Kaiser–Bessel window, pad it, transform it, and sum each wanted point over the w³ nearest grid
points weighted by the window (Fessler & Sutton 2003; β after Beatty 2005). `docs/slices.md` has the measured error.
For a fixed set of rotations that sum is a sparse matrix, built once and applied many times, as long as it is not too
large to keep.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import torch
from scipy.sparse import csr_array
from torch import Tensor

from hoarfrost.fourier import FourierDisc, centred_window, fft3_centred, radius_grid
from hoarfrost.model.kaiser_bessel import KaiserBessel
from hoarfrost.model.symmetry import PointGroup

POINTS_PER_CHUNK = 1 << 17
POINTS_PER_EXPANSION = 1 << 14
# Of the sparse matrix and its transpose. Building them takes as much again for a moment.
MATRIX_BYTES = 256 << 20


class InterpolationMatrix:
    """The sum over grid points, for fixed frequencies: a sparse real matrix (n, G³) and its transpose, both CSR.

    `points` are (n, 3) as (x, y, z) in steps of a cubic grid of `grid_box` points, origin at grid_box // 2.
    """

    def __init__(self, points: Tensor, grid_box: int, window: KaiserBessel) -> None:
        n, taps = points.shape[0], window.width**3
        indices = torch.empty(n, taps, dtype=torch.int32)
        weights = torch.empty(n, taps, dtype=points.dtype)
        for start in range(0, n, POINTS_PER_CHUNK):
            chunk = slice(start, start + POINTS_PER_CHUNK)
            indices[chunk], weights[chunk] = _taps(points[chunk], grid_box, window)
        rows = torch.arange(0, n * taps + 1, taps, dtype=torch.int64)
        matrix = csr_array(
            (weights.reshape(-1).numpy(), indices.reshape(-1).numpy(), rows.numpy()), shape=(n, grid_box**3)
        )
        # SciPy transposes in linear time; torch would sort, ten times slower. The products are faster in torch.
        self._matrix = _to_torch(matrix, points.device)
        self._transpose = _to_torch(matrix.T.tocsr(), points.device)

    def interpolate(self, grid: Tensor) -> Tensor:
        """Real columns at the points, (n, c), of columns on the grid, (G³, c)."""
        return self._matrix @ grid

    def spread(self, values: Tensor) -> Tensor:
        """The transpose: columns (n, c) at the points, summed onto the grid (G³, c)."""
        return self._transpose @ values


def _taps(points: Tensor, grid_box: int, window: KaiserBessel) -> tuple[Tensor, Tensor]:
    """Flat grid indices and window weights, (n, w³) each, around points (n, 3)."""
    return _outer(*_taps_along(points.cpu(), grid_box, window), grid_box)


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


class SeparableInterpolation:
    """The same sums as `InterpolationMatrix`, from the window's weights along each axis: a tenth of the memory.

    They are multiplied out for some points at a time, which takes two to three times as long as the matrix. Points are
    visited in the order of the grid: sums that jump about in it take four times as long again.
    """

    def __init__(self, points: Tensor, grid_box: int, window: KaiserBessel) -> None:
        n, device = len(points), points.device
        self._grid_box = grid_box
        self._first = torch.empty(n, 3, dtype=torch.int16, device=device)
        self._weights = torch.empty(n, 3, window.width, dtype=points.dtype, device=device)
        position = (points + grid_box // 2).to(torch.int32)
        cell = (position[:, 2] * grid_box + position[:, 1]) * grid_box + position[:, 0]
        self._order = torch.argsort(cell).to(torch.int32)
        del position, cell
        for chunk in self._chunks():
            self._first[chunk], self._weights[chunk] = _taps_along(points[self._order[chunk]], grid_box, window)

    def interpolate(self, grid: Tensor) -> Tensor:
        """Real columns at the points, (n, c), of columns on the grid, (G³, c)."""
        values = grid.new_empty(len(self._order), grid.shape[1])
        for chunk in self._chunks():
            indices, weights = _outer(self._first[chunk], self._weights[chunk], self._grid_box)
            sums = torch.nn.functional.embedding_bag(indices, grid, per_sample_weights=weights, mode="sum")
            values[self._order[chunk]] = sums
        return values

    def spread(self, values: Tensor) -> Tensor:
        """The transpose: columns (n, c) at the points, summed onto the grid (G³, c)."""
        table = values.new_zeros(values.shape[1], self._grid_box**3)
        for chunk in self._chunks():
            indices, weights = _outer(self._first[chunk], self._weights[chunk], self._grid_box)
            flat, columns = indices.flatten(), values[self._order[chunk]].T
            for row, column in zip(table, columns, strict=True):
                row.index_add_(0, flat, (column.unsqueeze(1) * weights).flatten())
        return table.T.contiguous()

    def _chunks(self) -> Iterator[slice]:
        for start in range(0, len(self._order), POINTS_PER_EXPANSION):
            yield slice(start, start + POINTS_PER_EXPANSION)


def bytes_of_matrix(n_points: int, width: int, dtype: torch.dtype) -> int:
    """What an `InterpolationMatrix` and its transpose take."""
    return 2 * (dtype.itemsize + torch.int32.itemsize) * n_points * width**3


def interpolation(
    points: Tensor, grid_box: int, window: KaiserBessel, matrix_bytes: int
) -> InterpolationMatrix | SeparableInterpolation:
    """The matrix where it and its transpose take no more than `matrix_bytes`; otherwise what takes less, and longer."""
    if bytes_of_matrix(len(points), window.width, points.dtype) <= matrix_bytes:
        return InterpolationMatrix(points, grid_box, window)
    return SeparableInterpolation(points, grid_box, window)


def _to_torch(matrix: csr_array, device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr),
            torch.from_numpy(matrix.indices),
            torch.from_numpy(matrix.data),
            size=matrix.shape,
            device=device,
            check_invariants=False,
        )


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
        step = max(1, POINTS_PER_CHUNK * 8 * values.shape[across] // values.numel())
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
        matrix_bytes: int = MATRIX_BYTES,
    ) -> None:
        if box <= 2 * disc.r_max:
            raise ValueError(f"a volume of {box} voxels cannot hold frequencies up to r_max {disc.r_max}")
        self.disc = disc
        self.box = box
        self.n_slices = rotations.shape[0]
        window = KaiserBessel(kernel_width, oversampling)
        self._grid = AdjointGrid(box, disc.box, window, group=group, device=device, dtype=dtype)
        self._grid_box, self._gain = self._grid.grid_box, self._grid.gain
        plane = disc.coordinates.to(torch.float64)
        points = torch.einsum("kc,ncx->nkx", plane, rotations.to("cpu", torch.float64)[:, :2, :])
        grid_points = (points.reshape(-1, 3) * (2 * oversampling)).to(device=device, dtype=dtype)
        self._matrix = interpolation(grid_points, self._grid_box, window, matrix_bytes)

    def slices(self, volume: Tensor) -> Tensor:
        """P_R V for each rotation: complex (n, K) of a real volume (box, box, box)."""
        return self.slices_of(self.prepare(volume))

    def prepare(self, volume: Tensor) -> Tensor:
        """The padded, window-corrected spectrum (G³, 2) of a volume, the same for every set of rotations."""
        corrected = centred_window(volume, 2 * self.box) * self._gain
        spectrum = fft3_centred(centred_window(corrected, self._grid_box)) / self.disc.box
        return torch.view_as_real(spectrum).reshape(-1, 2)

    def slices_of(self, prepared: Tensor) -> Tensor:
        """P_R V, complex (n, K), of what `prepare` made of V."""
        values = self._matrix.interpolate(prepared)
        return torch.view_as_complex(values).reshape(self.n_slices, self.disc.size)

    def adjoint(self, slices: Tensor) -> Tensor:
        """Σ Pᵀ s over slices (n, K), adjoint of `slices` in Re Σ conj(a) b: real (box, box, box)."""
        columns = torch.view_as_real(slices.reshape(-1))
        return self._grid.volume(torch.view_as_complex(self._matrix.spread(columns)))

    def average(self, slices: Tensor, weights: Tensor, floor: Callable[[Tensor], Tensor]) -> Tensor:
        """Direct Fourier reconstruction, V̂ = N Σ φ s / (Σ φ w + ε) at each point of the grid: real (box, box, box).

        `slices` complex (n, K) already carry their weights, real (n, K). `floor` gives ε of the sums Σ φ w, real
        (G, G, G), which count a frequency and its opposite. Nothing outside the slices' disc is filled in.
        """
        columns = torch.stack([slices.real.reshape(-1), slices.imag.reshape(-1), weights.reshape(-1)], dim=1)
        table = self._matrix.spread(columns).reshape(*(self._grid_box,) * 3, 3)
        opposite = table.flip((0, 1, 2)).roll((1, 1, 1), (0, 1, 2))
        total = torch.complex(table[..., 0] + opposite[..., 0], table[..., 1] - opposite[..., 1])
        weight = table[..., 2] + opposite[..., 2]
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
        return self._grid.kernel(self._matrix.spread(weights.reshape(-1, 1)))

    def adjoint_and_kernel(self, slices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """`adjoint` of the slices and `normal_kernel` of the weights, reading the matrix once for both."""
        columns = torch.stack([slices.real.reshape(-1), slices.imag.reshape(-1), weights.reshape(-1)], dim=1)
        table = self._matrix.spread(columns)
        return self._grid.volume(torch.view_as_complex(table[:, :2].contiguous())), self._grid.kernel(table[:, 2])


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
