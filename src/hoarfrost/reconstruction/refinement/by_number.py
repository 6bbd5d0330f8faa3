"""How far half maps of fewer particles agree: a sum over some of the folds takes no visit of a particle."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from hoarfrost.evaluation.half_maps import FSC_THRESHOLD
from hoarfrost.maths.fsc import fourier_shell_correlation, resolution_A
from hoarfrost.model.quadratic import Quadratic
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.folds import FOLDS, FoldSums
from hoarfrost.reconstruction.estimate.m_step import MStep, solve_each
from hoarfrost.reconstruction.refinement.sweep import particle_support


def resolution_by_number(
    env: Env, sums: FoldSums, of_class: int, start: Tensor, fsc_of_all: Tensor, r_max: float
) -> Tensor:
    """Numbers of particles, of one fold of each half to all, and how far their half maps agree in Å: (k, 2) float64.

    `start` (box, box, box) is the map of the class, in whose support these are solved for, as were those of all
    particles, whose FSC is `fsc_of_all` (shells,). None agree beyond r_max.
    """
    solve, nothing = MStep(particle_support(env, start), positive=False), torch.zeros_like(start)
    curves = {FOLDS: fsc_of_all}
    for folds in range(1, FOLDS):
        parts = [sums.of_first(folds, half, of_class) for half in range(2)]
        of_halves = [part for part in parts if part is not None]
        if len(of_halves) == len(parts):
            maps = env.team.once(partial(_half_maps, solve, of_halves, nothing), torch.stack([nothing, nothing]))
            curves[folds] = fourier_shell_correlation(*maps)
    box, finest_A = len(start), env.length_A / r_max
    found = [
        [int((env.folds.fold < folds).sum()), max(resolution_A(fsc, box, env.length_A / box, FSC_THRESHOLD), finest_A)]
        for folds, fsc in sorted(curves.items())
    ]
    return env.team.same(torch.tensor(found, dtype=torch.float64))


def _half_maps(solve: MStep, of_halves: list[Quadratic], nothing: Tensor) -> Tensor:
    return solve_each(lambda part: solve(part, nothing), of_halves, len(nothing), nothing.device)
