"""Error and cost of ways to interpolate a volume's transform, against the direct Fourier sum.

    python benchmarks/slice_accuracy.py

Prints, for each window and oversampling, the error of central slices relative to their root mean square, for white
noise that fills a ball of 85 % of the box (the worst case for a support), and the number of grid points summed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc, centred_window, fft3_centred, soft_sphere
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.model.slices.operator import KaiserBessel

BOX = 24
R_MAX = 9.5


def main() -> None:
    """Print the table."""
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(BOX, BOX, BOX, generator=generator, dtype=torch.float64)
    volume = volume * soft_sphere(BOX, 0.85 * BOX - 2, 2)
    plane = FourierDisc(BOX, R_MAX).coordinates.to(torch.float64)
    points = torch.einsum("kc,ncx->nkx", plane, random_rotations(30, generator)[:, :2, :]).reshape(-1, 3)
    exact = direct_sum(volume, points)
    print(f"{'window':24} {'oversampling':>12} {'points':>7} {'error':>9}")
    for oversampling in (2, 4):
        rows: list[tuple[str, int, Callable[[Tensor], Tensor]]] = [("trilinear", 2, triangle)]
        rows += [(f"Hann-windowed sinc, {w}", w, windowed_sinc(w, oversampling)) for w in (4, 6)]
        rows += [(f"Kaiser–Bessel, {w}", w, KaiserBessel(w, oversampling)) for w in (2, 3, 4, 5, 6)]
        for name, width, window in rows:
            found = interpolate(volume, points, window, width, oversampling)
            error = float((found - exact).norm() / exact.norm())
            print(f"{name:24} {oversampling:12d} {width**3:7d} {error:9.1e}")


def direct_sum(volume: Tensor, points: Tensor) -> Tensor:
    """V̂ at points (n, 3) by definition."""
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    phase = -2 * math.pi / BOX * (points @ torch.stack([x, y, z]).reshape(3, -1))
    return torch.polar(torch.ones_like(phase), phase) @ volume.reshape(-1).to(torch.complex128)


def triangle(offset: Tensor) -> Tensor:
    """The weights of trilinear interpolation."""
    return (1 - offset.abs()).clamp(min=0)


def windowed_sinc(width: int, oversampling: int) -> Callable[[Tensor], Tensor]:
    """A sinc that cuts off half way between the signal's edge and its first alias, under a Hann window."""
    cutoff = 1 / oversampling + (1 - 1 / oversampling) * 0.5

    def window(offset: Tensor) -> Tensor:
        inside = (offset.abs() <= width / 2).to(offset.dtype)
        return inside * torch.sinc(offset * cutoff) * torch.cos(math.pi * offset / width).square()

    return window


def interpolate(
    volume: Tensor, points: Tensor, window: Callable[[Tensor], Tensor], width: int, oversampling: int
) -> Tensor:
    """V̂ at points by any window, its transform (computed numerically) divided out of the volume first."""
    grid_box = oversampling * BOX
    fine = torch.linspace(-width / 2, width / 2, 4001, dtype=torch.float64)
    axis = (torch.arange(BOX, dtype=torch.float64) - BOX // 2) / grid_box
    transform = torch.trapezoid(window(fine) * torch.cos(2 * math.pi * axis[:, None] * fine), fine)
    gain = 1 / transform
    corrected = volume * gain[:, None, None] * gain[:, None] * gain
    grid = fft3_centred(centred_window(corrected, grid_box)).flatten()
    position = points * oversampling + grid_box // 2
    first = torch.ceil(position - width / 2)
    total = torch.zeros(len(points), dtype=torch.complex128)
    for step in torch.cartesian_prod(*[torch.arange(width)] * 3):
        corner = first + step
        index = (corner.to(torch.int64) % grid_box) @ torch.tensor([1, grid_box, grid_box**2])
        total += grid[index] * window(position - corner).prod(dim=1)
    return total


if __name__ == "__main__":
    main()
