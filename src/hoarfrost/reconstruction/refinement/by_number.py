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


def resolution_by_number(env: Env, sums: FoldSums, of_class: int, start: Tensor, r_max: float) -> Tensor:
    """Numbers of particles, of one fold of each half to all, and how far their half maps agree in Å: (k, 2) float64.

    `start` (box, box, box) is the map of the class, in whose support these are solved for; none agree beyond r_max.
    """
    solve, nothing, found = MStep(particle_support(env, start), positive=False), torch.zeros_like(start), []
    for folds in range(1, FOLDS + 1):
        parts = [sums.of_first(folds, half, of_class) for half in range(2)]
        of_halves = [part for part in parts if part is not None]
        if len(of_halves) < len(parts):
            continue
        maps = env.team.once(partial(_half_maps, solve, of_halves, nothing), torch.stack([nothing, nothing]))
        fsc = fourier_shell_correlation(*maps)
        reached_A = resolution_A(fsc, len(start), env.length_A / len(start), FSC_THRESHOLD)
        found.append([float((env.folds.fold < folds).sum()), max(reached_A, env.length_A / r_max)])
    return env.team.same(torch.tensor(found, dtype=torch.float64).view(-1, 2))


def _half_maps(solve: MStep, of_halves: list[Quadratic], nothing: Tensor) -> Tensor:
    return solve_each(lambda part: solve(part, nothing), of_halves, len(nothing), nothing.device)
