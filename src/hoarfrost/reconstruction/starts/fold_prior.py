"""The prior of a start's map: how strong each shell is, learnt from how well the folds of the particles agree.

A map of few images holds more noise than one would think: all look at the same map, take its noise for signal and
put theirs where it is. What tells signal from noise without a truth is to compare maps of different images. With F the
FSC of those of two halves of the folds, the signal in the map of all is 2 F / (1 − F) times its noise, and the prior
whose MAP estimate is the best linear one (Scheres 2012, J. Mol. Biol. 415, 406) adds T_s (1 − F) / (2 F) to the
curvature of shell s. But these halves have their poses from a common map, so they agree in some of its noise too: hence
`SHARED_POSES`.

It also holds down what lies beyond the band limit, where images say little. Left free, any noise inside of it
can be made positive by adding something out there, and the bound at zero is no bound.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.model.quadratic import Quadratic, mean_of
from hoarfrost.parallel.threads import each
from hoarfrost.reconstruction.estimate.m_step import MStep, mean_curvature, wiener_ridge

# How many times the Wiener ridge holds down each shell.
SHARED_POSES = 3.0


def ridges_of_folds(folds: Sequence[Quadratic], support: Tensor) -> Tensor:
    """μ of each class and shell, (C, support's box // 2 + 1), from what two folds or more say of each class."""
    solve, nothing = MStep(support, positive=False), torch.zeros_like(support)
    halves = [mean_of(folds[i::2]) for i in range(2)]

    def ridge(of_class: int) -> Tensor:
        parts = [half[of_class] for half in halves]
        # From nothing, or what both start from would be found in both.
        fsc = fourier_shell_correlation(*(solve(part, nothing) for part in parts))
        return SHARED_POSES * wiener_ridge(mean_curvature(mean_of(parts).kernel, support), fsc)

    return torch.stack(each(ridge, range(len(halves[0].linear)), support.device))
