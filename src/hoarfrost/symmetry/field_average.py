"""Sums of a field on a cubic grid over its turned copies: what the average over a point group is made of.

A turn that takes the grid to itself only permutes voxels, and is exact. For any other the field is interpolated: it is
band-limited, so after an FFT onto twice as fine a grid a Kaiser–Bessel window of four points an axis does it, the dual
of `nufft.sampler`. A turn about z mixes no planes: it takes four points of either axis, the same ones in all planes.
"""

import math

import torch
from torch import Tensor

from hoarfrost.maths.fourier import radius_grid
from hoarfrost.nufft.torch import POINTS_PER_CHUNK, WindowTaps, weighted_rows
from hoarfrost.nufft.window import KaiserBessel, WindowedGrid
from hoarfrost.parallel.threads import each

WIDTH, OVERSAMPLING = 4, 2
# Voxels at the grid's faces about which there is not all of a window.
MARGIN_VOXELS = WIDTH // OVERSAMPLING
# A field is faded to zero at the grid's faces, as an FFT takes it for periodic and a jump there would ring inside. The
# fade begins MARGIN beyond the wanted radius, and at FLAT at the latest, both as fractions of half the grid.
MARGIN = 0.1
FLAT = 0.85
# Planes that are interpolated together: their numbers lie side by side in memory.
PLANES_AT_ONCE = 32


def permuted_sum(field: Tensor, turns: Tensor) -> Tensor:
    """Σ_g f(gᵀ x) over turns g (m, 3, 3) that permute voxels.

    Exact where the grid has a voxel opposite each, beyond the face at −n / 2.
    """
    total = torch.zeros_like(field)
    for turn in turns.to(torch.int64).tolist():
        # f(gᵀ x): the axis x of the result is, up to its sign, that axis of f on which g's row x is not zero.
        axes, flips, shifts = [0, 0, 0], [], []
        for row in range(3):
            column = next(c for c in range(3) if turn[row][c] != 0)
            axes[2 - row] = 2 - column
            if turn[row][column] < 0:
                flips.append(2 - row)
                shifts.append(1 - field.shape[-1] % 2)
        moved = field.permute(axes)
        total += moved.flip(flips).roll(shifts, flips) if flips else moved
    return total


def are_about_z(turns: Tensor) -> bool:
    """Whether all turns (m, 3, 3) leave z where it is."""
    return bool((turns[:, 2, 2] == 1).all())


def summed_about_z(field: Tensor, turns: Tensor, radius: float) -> Tensor:
    """f(x) and Σ_c f(cᵀ x) over turns c (m, 3, 3) about z, of use up to `radius` voxels from the origin.

    The field (p, n, n) may be the first planes of one of n planes, as it is summed plane by plane.
    """
    n, fine = field.shape[-1], OVERSAMPLING * field.shape[-1]
    place, disc = _places(n, radius, 2, field.device)
    taps = [_taps_in_plane(place.to(turns.dtype) @ turn[:2, :2].to(place.device), fine) for turn in turns]
    faded = _faded(field, radius)
    total = field.clone()

    def add_turned(slab_and_planes: tuple[Tensor, Tensor]) -> None:
        slab, planes = slab_and_planes
        values = _finer_grid(planes, dims=2).reshape(len(planes), fine**2).T.contiguous()
        for indices, weights in taps:
            slab.view(len(slab), n * n)[:, disc] += weighted_rows(values, indices, weights).T.to(field.dtype)

    slabs = zip(torch.split(total, PLANES_AT_ONCE), torch.split(faded, PLANES_AT_ONCE), strict=True)
    each(add_turned, [*slabs], field.device)
    return total


def summed_anywhere(field: Tensor, turns: Tensor, radius: float) -> Tensor:
    """The same for any turns."""
    n = field.shape[-1]
    place, ball = _places(n, radius, 3, field.device)
    total = field.clone()
    grid = _finer_grid(_faded(field, radius), dims=3)
    finer = WindowedGrid(OVERSAMPLING * n, OVERSAMPLING, KaiserBessel(WIDTH, OVERSAMPLING))
    taps = WindowTaps(finer, device=field.device)
    for turn in turns.to(field.device):
        for first in range(0, len(ball), POINTS_PER_CHUNK):
            chunk = slice(first, first + POINTS_PER_CHUNK)
            # Rows x cᵀ … are (c x)ᵀ; cᵀ x is wanted.
            points = (place[chunk].to(turn.dtype) @ turn).to(torch.float32)
            sums = weighted_rows(grid.view(-1, 1), *taps(points))
            total.view(-1)[ball[chunk]] += sums.squeeze(1).to(field.dtype)
    return total


def _places(n: int, radius: float, dims: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Voxels up to `radius` from the origin, (x, y) or (x, y, z) (m, dims), and their flat indices (m,)."""
    index = (radius_grid(n, dims, device) <= radius).flatten().nonzero().squeeze(1)
    return torch.stack([index // n**axis % n for axis in range(dims)], dim=1) - n // 2, index


def _taps_in_plane(points: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Flat indices and weights float32, (m, w²) each, of a fine plane about `points` (m, 2), (x, y) in voxels."""
    position = OVERSAMPLING * points + side // 2
    near = torch.ceil(position - WIDTH / 2).unsqueeze(-1) + torch.arange(WIDTH, device=points.device)
    x, y = KaiserBessel(WIDTH, OVERSAMPLING)(near - position.unsqueeze(-1)).unbind(1)
    column, row = near.to(torch.int64).unbind(1)
    indices, weights = row.unsqueeze(2) * side + column.unsqueeze(1), y.unsqueeze(2) * x.unsqueeze(1)
    return indices.flatten(1), weights.flatten(1).to(torch.float32)


def _faded(field: Tensor, radius: float) -> Tensor:
    """The field (p, n, n), the first planes of n or all, faded to zero towards the faces."""
    half = field.shape[-1] / 2
    flat = min(radius / half + MARGIN, FLAT)
    radii = radius_grid(field.shape[-1], 3, field.device)[: len(field)].to(field.dtype)
    share = ((radii / half - flat) / (1 - flat)).clamp(0, 1)
    return field * (0.5 + 0.5 * torch.cos(math.pi * share))


def _finer_grid(field: Tensor, *, dims: int) -> Tensor:
    """The field, n even, twice as fine along its last axes and divided by the window's transform: (…, 2n, 2n) float32.

    Only half of the spectrum is held, which matters for fine maps.
    """
    n = field.shape[-1]
    fine, half, axes = OVERSAMPLING * n, n // 2, tuple(range(-dims, 0))
    spectrum = torch.fft.rfftn(torch.fft.ifftshift(field.to(torch.float32), dim=axes), dim=axes)
    window = KaiserBessel(WIDTH, OVERSAMPLING)
    frequency = torch.fft.fftfreq(n, dtype=torch.float64) / OVERSAMPLING
    gain = (OVERSAMPLING / window.transform(frequency)).to(field.device, torch.float32)
    spectrum *= gain[: half + 1]
    for axis in range(1, dims):
        spectrum *= gain.view(-1, *(1,) * axis)
    finer = torch.zeros(*field.shape[:-dims], *(fine,) * (dims - 1), n + 1, dtype=spectrum.dtype, device=field.device)
    # Frequencies 0 … n/2 − 1 and −n/2 + 1 … −1; nothing is known at Nyquist.
    low, high = slice(0, half), slice(1 - half, None)
    for y in (low, high):
        if dims == 2:
            finer[..., y, :half] = spectrum[..., y, :half]
        else:
            for z in (low, high):
                finer[..., z, y, :half] = spectrum[..., z, y, :half]
    grid: Tensor = torch.fft.fftshift(torch.fft.irfftn(finer, s=(fine,) * dims, dim=axes), dim=axes)
    return grid
