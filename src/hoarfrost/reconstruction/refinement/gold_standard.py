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


def fsc_of_halves(maps: Tensor) -> Tensor:
    """The FSC of the maps of both halves (2, C, box, box, box): (C, shells) float64."""
    return torch.stack([fourier_shell_correlation(a, b) for a, b in zip(*maps, strict=True)])


@final
@dataclass(frozen=True)
class Agreement:
    """How the half maps of each class agree, (C, shells) each: `fsc` as they are, and `inside` a soft mask.

    Either half's map ends abruptly where its support does, and both supports much alike: the sharp edge is something
    that both have in common. `by_chance` is how far the FSC of noise deviates in the mask. A shell s has 2π s²
    independent coefficients of a map that fills its box, and as many times fewer of one in a mask, or of a symmetry;
    chance deviates by the root of one over twice their number.
    """

    fsc: Tensor
    inside: Tensor
    by_chance: Tensor

    @classmethod
    def of(cls, maps: Tensor, masks: Tensor, n_alike: int, team: Team) -> Agreement:
        """That of the maps of both halves (2, C, box, box, box), of a symmetry of so many operations.

        `masks` (C, box, box, box) are soft, from 1 to 0.
        """
        fsc, inside = fsc_of_halves(maps), fsc_of_halves(maps * masks)
        # Of noise that is multiplied by a mask.
        square = masks.to(torch.float64).square().flatten(1)
        share = square.mean(dim=1).square() / square.square().mean(dim=1).clamp(min=1e-12)
        shells = torch.arange(fsc.shape[1], dtype=torch.float64, device=fsc.device).clamp(min=1)
        independent = 2 * math.pi * shells.square() * share[:, None].clamp(min=1e-9) / n_alike
        return cls(team.same(fsc), team.same(inside), team.same((2 * independent).rsqrt()))

    def at_edge(self, r_max: float) -> Tensor:
        """The FSC at the band limit r_max: (C,)."""
        last = math.floor(r_max)
        return self.inside[:, last - EDGE_SHELLS + 1 : last + 1].mean(dim=1)

    def goes_on(self, before: float, r_max: float) -> bool:
        """Whether maps of any class agree up to r_max: by 0.143 there, or by more than chance on the way from `before`.

        The spectrum of a protein has a valley at 6 to 9 Å, where half maps hardly agree though they do beyond.
        """
        if bool(self.at_edge(r_max).max() >= FSC_THRESHOLD):
            return True
        new = slice(math.floor(before) + 1, math.floor(r_max) + 1)
        mean, chance = self.inside[:, new].mean(dim=1), self.by_chance[:, new].square().mean(dim=1).sqrt()
        n_shells = max(new.stop - new.start, 1)
        return bool((mean > SURE_ERRORS * chance / math.sqrt(n_shells)).any())

    def agree_to(self, r_max: float) -> float:
        """The last shell, r_max at most, about which the FSC of any class is no less than 0.143."""
        until = self.inside[:, : math.floor(r_max) + 1].unsqueeze(1)
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
