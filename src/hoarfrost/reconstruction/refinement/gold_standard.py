"""What the maps of two halves tell, and what becomes of them, between one sweep of refinement and the next."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hoarfrost.evaluation.half_maps import FSC_THRESHOLD
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.estimate.m_step import filter_shells

EDGE_SHELLS = 2
# Half maps agree where their mean FSC exceeds so many of the deviations that chance has.
SURE_ERRORS = 3.0


@final
@dataclass(frozen=True)
class Agreement:
    """How the half maps of each class agree, (C, shells) each: `fsc`, and its deviation `by_chance` of maps of noise.

    A shell s has 2π s² independent coefficients of a map that fills its box, and as many times fewer of one that is
    empty outside a share of the box, or has a symmetry. Chance deviates by the root of one over twice their number.
    """

    fsc: Tensor
    by_chance: Tensor

    @classmethod
    def of(cls, maps: Tensor, n_alike: int, team: Team) -> Agreement:
        """That of the maps of both halves (2, C, box, box, box), of a symmetry of so many operations."""
        fsc = team.same(torch.stack([fourier_shell_correlation(a, b) for a, b in zip(*maps, strict=True)]))
        share = (maps != 0).to(torch.float64).mean(dim=(0, 2, 3, 4)).cpu()
        shells = torch.arange(fsc.shape[1], dtype=torch.float64).clamp(min=1)
        independent = 2 * math.pi * shells.square() * share[:, None].clamp(min=1e-9) / n_alike
        return cls(fsc, team.same((2 * independent).rsqrt()))

    def at_edge(self, r_max: float) -> Tensor:
        """The FSC at the band limit r_max: (C,)."""
        last = math.floor(r_max)
        return self.fsc[:, last - EDGE_SHELLS + 1 : last + 1].mean(dim=1)

    def goes_on(self, before: float, r_max: float) -> bool:
        """Whether maps of any class agree up to r_max: by 0.143 there, or by more than chance on the way from `before`.

        The spectrum of a protein has a valley at 6 to 9 Å, where half maps hardly agree though they do beyond.
        """
        if bool(self.at_edge(r_max).max() >= FSC_THRESHOLD):
            return True
        new = slice(math.floor(before) + 1, math.floor(r_max) + 1)
        mean, chance = self.fsc[:, new].mean(dim=1), self.by_chance[:, new].square().mean(dim=1).sqrt()
        n_shells = max(new.stop - new.start, 1)
        return bool((mean > SURE_ERRORS * chance / math.sqrt(n_shells)).any())

    def agree_to(self, r_max: float) -> float:
        """The last shell, r_max at most, about which the FSC of any class is no less than 0.143."""
        until = self.fsc[:, : math.floor(r_max) + 1].unsqueeze(1)
        smooth = torch.nn.functional.avg_pool1d(until, 2 * EDGE_SHELLS + 1, stride=1).squeeze(1)
        above = (smooth.amax(dim=0) >= FSC_THRESHOLD).nonzero()
        return float(above[-1] + EDGE_SHELLS) if len(above) else 0.0


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
