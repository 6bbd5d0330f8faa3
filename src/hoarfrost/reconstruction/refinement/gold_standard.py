"""What becomes of the maps of two halves between one sweep of refinement and the next."""

import torch
from torch import Tensor

from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.reconstruction.estimate.m_step import filter_shells


def fsc_of_halves(maps: Tensor) -> Tensor:
    """The FSC of the maps of both halves (2, C, box, box, box): (C, shells)."""
    return torch.stack([fourier_shell_correlation(a, b) for a, b in zip(*maps, strict=True)])


def filtered_halves(maps: Tensor, fsc: Tensor) -> Tensor:
    """Maps of both halves (2, C, box, box, box) times their Wiener factors, signal / (signal + noise): FSC (C, s)."""
    return torch.stack(
        [
            torch.stack([filter_shells(volume, of.clamp(min=0)) for volume, of in zip(half, fsc, strict=True)])
            for half in maps
        ]
    )


def joined_below(maps: Tensor, r_max: float) -> Tensor:
    """Maps of both halves, the same shape, with their mean up to r_max, so that their frames do not drift apart."""
    difference = (maps[0] - maps[1]) / 2
    low = (torch.arange(difference.shape[-1] // 2 + 1) <= r_max).double()
    shared = torch.stack([filter_shells(of_class, low) for of_class in difference])
    return torch.stack([maps[0] - shared, maps[1] + shared])
