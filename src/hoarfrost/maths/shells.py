"""Shells of Fourier space: the coefficients whose distance from the origin, in Fourier pixels, rounds to one number."""

import torch
from torch import Tensor

from hoarfrost.maths.fourier import radius_grid


def nearest_shell(radii: Tensor) -> Tensor:
    """The shell, round(|k|), of coefficients at these distances from the origin: int64 of the same shape."""
    return radii.round().to(torch.int64)


def shells_of_spectrum(box: int, device: torch.device | str = "cpu") -> Tensor:
    """The shell of each coefficient of torch.fft.fftn of a volume (box, box, box): int64 of that shape."""
    return nearest_shell(torch.fft.ifftshift(radius_grid(box, 3, device)))


def shells_of_half_spectrum(box: int, device: torch.device | str = "cpu") -> Tensor:
    """The shell of each coefficient of torch.fft.rfftn of a volume: int64 (box, box, box // 2 + 1)."""
    return shells_of_spectrum(box, device)[..., : box // 2 + 1]


def shell_means(values: Tensor, shells: Tensor) -> Tensor:
    """The mean of real `values` in each shell 0, 1, …, of `shells` of the same shape; 0 in a shell without any."""
    shells = shells.flatten()
    return torch.bincount(shells, values.flatten()) / torch.bincount(shells).clamp(min=1)


def filter_shells(volume: Tensor, factors: Tensor) -> Tensor:
    """The volume (n, n, n) with shell |k| = s times `factors[s]`, (n // 2 + 1,); nothing is left beyond."""
    shells = shells_of_half_spectrum(volume.shape[-1], volume.device)
    beyond = torch.zeros(int(shells.max()) + 1 - len(factors), device=volume.device)
    of_shell = torch.cat([factors.to(volume), beyond])
    filtered: Tensor = torch.fft.irfftn(torch.fft.rfftn(volume) * of_shell[shells], s=volume.shape)
    return filtered
