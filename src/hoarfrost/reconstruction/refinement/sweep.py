"""A sweep of refinement: an E-step over particles, each under a map it has no part in, and an M-step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from hoarfrost.evaluation.particle_mask import make_particle_mask
from hoarfrost.model.all_poses.band import box_of
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.folds import FOLDS, FoldMaps, FoldSums
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.estimate.m_step import MStep
from hoarfrost.reconstruction.refinement.fold_pass import FoldPass
from hoarfrost.reconstruction.refinement.gold_standard import filtered_halves, fsc_of_halves, joined_below
from hoarfrost.reconstruction.refinement.refining import Refining
from hoarfrost.reconstruction.refinement.visit import Visit


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

    def solved(self, env: Env) -> tuple[FoldMaps, Tensor]:
        """New maps, filtered by how far each shell of each half can be trusted, and the halves' FSC, (C, shells)."""
        return maps_of_halves(env, self.fold_pass)


def maps_of_halves(env: Env, fold_pass: FoldPass) -> tuple[FoldMaps, Tensor]:
    """Maps that each half asks for after a pass, filtered by the FSC of the halves, and that FSC, (C, shells)."""
    start = fold_pass.maps.resized(fold_pass.box).volumes
    like = torch.cat([start[:, :1], start], dim=1)
    maps = env.team.once(partial(_solved, env, fold_pass.sums, start), like)
    halves, maps = maps[:, 0], maps[:, 1:]
    fsc = env.team.same(fsc_of_halves(halves))
    lowest = env.settings.stages_r_max[0]
    joined = [joined_below(filtered_halves(maps[:, fold], fsc), lowest) for fold in range(FOLDS)]
    return FoldMaps(env.team.same(torch.stack(joined, dim=1))), fsc


def _solved(env: Env, sums: FoldSums, start: Tensor) -> Tensor:
    """The maps that sums ask for: (2, 1 + folds, C, box, box, box), of each half and of it without each fold.

    They are empty where those that they `start` from, (2, folds, C, box, box, box), show solvent: of the noise in a
    ball most is there. Each half has a mask of its own, which tells it nothing of the other.
    """
    maps = []
    for half, of_half in enumerate(start.mean(dim=1)):
        solve = [MStep(particle_support(env, of_class), positive=False) for of_class in of_half]
        whole = [solve[c](sums.of_half(half, c), of_class) for c, of_class in enumerate(of_half)]
        maps.append(torch.stack(whole))
        for fold in range(FOLDS):
            without = [solve[c](sums.without(half, fold, c), of_class) for c, of_class in enumerate(whole)]
            maps.append(torch.stack(without))
    return torch.stack(maps).view(2, 1 + FOLDS, *start.shape[2:])


def particle_support(env: Env, volume: Tensor) -> Tensor:
    """Ones in and generously about the particle that a map (box, box, box) shows, zeros in the solvent."""
    return env.support(len(volume)) * (make_particle_mask(volume, env.coarse_r_max) > 0.5).to(volume)
