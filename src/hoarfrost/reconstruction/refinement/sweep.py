"""A sweep of refinement: an E-step over particles, each under a map it has no part in, and an M-step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
import torch
from torch import Tensor

from hoarfrost.evaluation.particle_mask import make_particle_mask
from hoarfrost.model.all_poses.band import box_of
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.folds import FOLDS, FoldMaps, FoldSums
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.estimate.local_gain import locally_weighted
from hoarfrost.reconstruction.estimate.m_step import Curvature, MStep, solve_each
from hoarfrost.reconstruction.refinement.fold_pass import FoldPass
from hoarfrost.reconstruction.refinement.gold_standard import Agreement, filtered_halves, joined_below
from hoarfrost.reconstruction.refinement.refining import Refining
from hoarfrost.reconstruction.refinement.visit import Visit
from hoarfrost.symmetry.point_group import PointGroup


@final
@dataclass(frozen=True)
class Sweep:
    """A pass over particles (`fold_pass`), and what it has seen so far: `n_done` particles.

    Batch by batch, `explained` (n, 3) is how well they are (`FoldPass.explained`), and `probability` (n, C) that of
    their classes.
    """

    fold_pass: FoldPass
    n_done: int = 0
    explained: tuple[Tensor, ...] = ()
    probability: tuple[Tensor, ...] = ()

    @classmethod
    def begin(cls, env: Env, maps: FoldMaps, r_max: float, refining: Refining) -> Sweep:
        """Over the particles whose turn it is."""
        refining, members = refining.next_members(env)
        return cls(FoldPass.begin(env, maps, r_max, box_of(r_max), members, refining))

    @property
    def fraction_done(self) -> float:
        """The part of the particles that is done."""
        return self.n_done / len(self.fold_pass.members)

    def step(self, env: Env) -> tuple[Sweep, Visit]:
        """Visit the next batch."""
        fold_pass, visit = self.fold_pass.step(env)
        after = Sweep(
            fold_pass,
            self.n_done + len(visit.everyone),
            (*self.explained, self.fold_pass.explained(env, visit)),
            (*self.probability, visit.of_all.probability),
        )
        return after, visit

    def judged(self, env: Env) -> HeldOut:
        """How well particles are explained by maps that they are not in."""
        nll, empty, sphere = torch.cat(self.explained).unbind(1)
        return HeldOut.of(nll, empty, sphere, env.team)

    def learnt(self) -> Refining:
        """What is known after the sweep."""
        refining = self.fold_pass.refining.learnt()
        return dataclasses.replace(refining, known=refining.known.with_shares(torch.cat(self.probability)))

    def solved(self, env: Env) -> tuple[FoldMaps, Agreement]:
        """New maps, filtered by how far each shell of each half can be trusted, and how the halves agree."""
        return maps_of_halves(env, self.fold_pass, half_maps(env, self.fold_pass))


def half_maps(env: Env, fold_pass: FoldPass) -> Tensor:
    """The maps that each half asks for after a pass, (2, C, box, box, box)."""
    start = fold_pass.maps.resized(fold_pass.box).volumes.mean(dim=1)

    def solved() -> Tensor:
        solve = [_solvers(env, of_half) for of_half in start]

        def of(number: tuple[int, int]) -> Tensor:
            half, c = number
            return solve[half][c](fold_pass.sums.of_half(half, c), start[half, c])

        return solve_each(of, [*np.ndindex(start.shape[:2])], fold_pass.box, start.device).view_as(start)

    return env.team.once(solved, start)


def maps_of_halves(env: Env, fold_pass: FoldPass, halves: Tensor) -> tuple[FoldMaps, Agreement]:
    """The `half_maps` after a pass without each fold, filtered by how the halves agree, and that."""
    start = fold_pass.maps.resized(fold_pass.box).volumes
    maps = env.team.once(partial(_without_folds, env, fold_pass.sums, start, halves), start)
    # From 1 well inside the supports to 0 at their edges.
    masks = torch.stack([2 * make_particle_mask(both, env.coarse_r_max) - 1 for both in halves.mean(dim=0)]).clamp(
        min=0
    )
    agreement = Agreement.of(halves, masks.to(halves), PointGroup(fold_pass.refining.symmetry).order, env.team)
    weighted = partial(_locally_weighted, env, maps, halves, agreement.fsc, fold_pass.r_max)
    maps = env.team.once(weighted, maps)
    lowest = env.settings.stages_r_max[0]
    joined = [joined_below(filtered_halves(maps[:, fold], agreement.fsc), lowest) for fold in range(FOLDS)]
    return FoldMaps(env.team.same(torch.stack(joined, dim=1))), agreement


def _without_folds(env: Env, sums: FoldSums, start: Tensor, halves: Tensor) -> Tensor:
    """The maps that sums ask for without each fold of each half, from those with it: (2, folds, C, box, box, box)."""
    solve = [
        [
            solver.of_fold(Curvature.of(sums.of_half(half, c).kernel, solver.support))
            for c, solver in enumerate(_solvers(env, of_half.mean(dim=0)))
        ]
        for half, of_half in enumerate(start)
    ]

    def without(number: tuple[int, int, int]) -> Tensor:
        half, fold, c = number
        return solve[half][c](sums.without(half, fold, c), halves[half, c])

    return solve_each(without, [*np.ndindex(start.shape[:3])], start.shape[-1], start.device).view_as(start)


def _locally_weighted(env: Env, maps: Tensor, halves: Tensor, fsc: Tensor, r_max: float) -> Tensor:
    """Maps without folds with local gains, which are those of each half by itself: the same shape."""
    found = torch.empty_like(maps)
    for half, c in np.ndindex(halves.shape[:2]):
        particle = particle_support(env, halves[half, c])
        found[half, :, c] = locally_weighted(maps[half, :, c], fsc[c], particle, r_max)
    return found


def _solvers(env: Env, volumes: Tensor) -> list[MStep]:
    """What solves for the maps of a half, which are empty where those before (C, box, box, box) show solvent.

    Of the noise in a ball most is there. Each half has a mask of its own, which tells it nothing of the other.
    """
    return [MStep(particle_support(env, volume), positive=False) for volume in volumes]


def particle_support(env: Env, volume: Tensor) -> Tensor:
    """Ones in and generously about the particle that a map (box, box, box) shows, zeros in the solvent."""
    return env.support_with_room(len(volume)) * (make_particle_mask(volume, env.coarse_r_max) > 0.5).to(volume)
