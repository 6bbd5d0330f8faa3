"""The final passes over all particles: some tell how far the halves agree, the others give their poses and the map.

First every particle is seen against the map of its half, without its fold, until these maps stand still or explain
particles no better. The FSC of the two half maps that this gives is honest where the halves were refined apart, and is
what is claimed. Then each is seen against the common map of all folds but its own, which is less noisy than that of a
half, so that poses are truer, and with them the map, until that stands still as well. Half maps of these poses would
agree better than they should; how far each shell is trusted stays what the halves say.

Where there was no refinement the halves have used poses found with one common map all along: one pass does, and the FSC
is an upper bound of what independent halves would show.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
import torch
from torch import Tensor

from hoarfrost.evaluation.half_maps import HalfMapFSC, compare_half_maps
from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.model.all_poses.band import box_of
from hoarfrost.model.quadratic import Quadratic, mean_of
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.folds import FOLDS, FoldMaps, FoldSums
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.estimate.local_gain import locally_weighted
from hoarfrost.reconstruction.estimate.m_step import Curvature, MStep, solve_each, wiener_ridge
from hoarfrost.reconstruction.refinement.by_number import resolution_by_number
from hoarfrost.reconstruction.refinement.fold_pass import FoldPass
from hoarfrost.reconstruction.refinement.gold_standard import Agreement
from hoarfrost.reconstruction.refinement.march import Refined
from hoarfrost.reconstruction.refinement.poses import Poses
from hoarfrost.reconstruction.refinement.refining import Refining
from hoarfrost.reconstruction.refinement.sweep import half_maps, maps_of_halves, particle_support
from hoarfrost.reconstruction.schedule import (
    LEAST_GROWTH,
    LEAST_RISE_OF_HALF_PASS,
    LEAST_RISE_OF_PASS,
    LEAST_STANDARD_ERRORS,
    MOST_COMMON_PASSES,
    MOST_HALF_PASSES,
    REACH_OF_FINAL,
    STANDS_STILL,
    r_max_of_final,
    share_of_sweeps,
)
from hoarfrost.reconstruction.state.phase import News, Tally


@dataclass(frozen=True)
class ClassMaps:
    """Maps of one class in the images' box (N, N, N), how well the halves agree, and its `share` of the particles.

    `by_number` (k, 2): numbers of particles, and to what resolution in Å half maps of so many agree.
    """

    volume: Tensor
    half_volumes: tuple[Tensor, Tensor]
    halves: HalfMapFSC
    share: float
    by_number: Tensor


@dataclass(frozen=True)
class FinalMaps:
    """The maps of all classes, the largest first, and what is known of the particles, with classes in that order.

    `half` (n,) int64 is the half map, 0 or 1, that each particle is in.
    """

    maps: list[ClassMaps]
    poses: Poses
    half: Tensor


@dataclass(frozen=True)
class Solved:
    """What passes came to: maps (C, box, box, box) of all particles, and `fsc` (C, shells) by which shells are trusted.

    `half_volumes` (2, C, box, box, box) are those of the last pass of halves that never met, and `by_number` (C, k, 2)
    how far half maps of some of its particles agree.
    """

    volumes: Tensor
    half_volumes: Tensor
    fsc: Tensor
    by_number: Tensor


@final
@dataclass(frozen=True)
class FinalPasses:
    """Passes over all particles: `of_halves` counts those of each half by itself, `common` those after them.

    `are_apart` tells whether the next is of each half by itself, and `before` has the sums of the last of these, to go
    back to if the next is worse. `solved` is what the last of the halves and the common ones after it came to. `maps`
    are those that the next pass sees particles against, and `poses` what the one under way has found. `explained`
    (n, 3) is how well each particle is explained by the maps that it is seen against, which it is not in: its NLL under
    the map, an empty one, and the map's spherical average; `nll_before` (n,) is the first of these in the pass before.
    `fold_pass` is None between passes.
    """

    maps: FoldMaps
    r_max: float
    refined: Refined
    refining: Refining
    poses: Poses
    explained: Tensor
    nll_before: Tensor
    of_halves: int = 0
    common: int = 0
    are_apart: bool = True
    before: FoldSums | None = None
    solved: Solved | None = None
    fold_pass: FoldPass | None = None
    n_done: int = 0
    is_over: bool = False
    news: tuple[News, ...] = ()

    @classmethod
    def begin(cls, env: Env, refined: Refined, refining: Refining) -> FinalPasses:
        """From where refinement ended."""
        r_max = refined.r_max
        if refined.independent:
            r_max = r_max_of_final(r_max, env.settings.refined_r_max, refined.agree_to)
        box = box_of(r_max) if refined.independent else refined.maps.box
        thorough = dataclasses.replace(refining, effort=refining.effort.thorough())
        poses = Poses.none(env.settings.n_particles, env.settings.classes)
        explained = torch.zeros(env.settings.n_particles, 3, dtype=torch.float64)
        return cls(refined.maps.resized(box), r_max, refined, thorough, poses, explained, explained[:, 0].clone())

    def without_sums(self) -> FinalPasses:
        """Without the sums of the pass before, which were made by other optics than particles have now."""
        return dataclasses.replace(self, before=None)

    def step(self, env: Env, tally: Tally) -> FinalPasses:
        """A batch of a pass; or the beginning of one; or the maps that it comes to."""
        if self.fold_pass is None:
            return self._begun(env)
        if self.fold_pass.is_over(env):
            return self._summed(env, self.fold_pass)
        fold_pass, visit = self.fold_pass.step(env)
        self.explained[visit.everyone] = self.fold_pass.explained(env, visit)
        s = env.settings
        junk = fold_pass.refining.junk
        self.poses.put(visit.everyone, Poses.of(visit, junk, s.pixel_size_A, s.shift_extent_A), env.team)
        n_done = self.n_done + len(visit.everyone)
        done = self._fraction_done(n_done / s.n_particles)
        news = News(env.final_stage, self.r_max, done, images=len(visit.everyone))
        return dataclasses.replace(self, fold_pass=fold_pass, n_done=n_done, news=(news,))

    def _fraction_done(self, done: float) -> float:
        """How much of all passes is done, when so much of this one is."""
        return share_of_sweeps(self.of_halves + self.common + done) if self.refined.independent else done

    def _begun(self, env: Env) -> FinalPasses:
        n = env.settings.n_particles
        reach = env.wide_reach if self.are_apart else env.reach
        fold_pass = FoldPass.begin(env, self.maps, self.r_max, self.maps.box, torch.arange(n), self.refining, reach)
        purpose = "half maps" if self.are_apart else "their poses and the final map"
        news = News(env.final_stage, self.r_max, message=f"Pass over all particles, for {purpose}")
        return dataclasses.replace(self, fold_pass=fold_pass, n_done=0, news=(news,))

    def _summed(self, env: Env, fold_pass: FoldPass) -> FinalPasses:
        """The maps that a pass comes to, and those to see particles against in the next unless they stand still."""
        after = dataclasses.replace(
            self,
            refining=fold_pass.refining.learnt(),
            nll_before=self.explained[:, 0].clone(),
            of_halves=self.of_halves + self.are_apart,
            common=self.common + (not self.are_apart),
            fold_pass=None,
            news=(News(env.final_stage, self.r_max, self._fraction_done(1.0), judged=self.judged(env)),),
        )
        sums, start, may_go_on = fold_pass.sums, self.maps.common, self._may_go_on(env)
        if self.are_apart and may_go_on:
            halves = half_maps(env, fold_pass)
            if self.of_halves == 0 or not self._stand_still(env, halves.mean(dim=0)):
                maps, agreement = maps_of_halves(env, fold_pass, halves)
                after = dataclasses.replace(after, maps=maps, before=sums)
                return after._finer(env, agreement) if self.of_halves == 0 else after
        if self.are_apart and self.before is not None and not self._explains_more(env, LEAST_RISE_OF_PASS):
            # This pass saw worse maps than the one before, whose half maps are the better ones then.
            sums, after = self.before, dataclasses.replace(after, nll_before=self.nll_before)
        solved = self._solved(env, sums, start)
        after = dataclasses.replace(after, solved=solved, are_apart=False, before=None)
        goes_on = self.are_apart or (may_go_on and not self._stand_still(env, solved.volumes))
        if not self.refined.independent or not goes_on:
            return dataclasses.replace(after, is_over=True)
        maps = FoldMaps(env.team.once(partial(maps_without, env, sums, solved, self.r_max), self.maps.volumes))
        return dataclasses.replace(after, maps=maps)

    def _finer(self, env: Env, agreement: Agreement) -> FinalPasses:
        """Begun again at the next band limit, where the half maps of the first pass agree up to this one.

        Refinement may have ended in a valley of the FSC, or before poses were found.
        """
        limits = env.settings.refined_r_max
        finer = [limit for limit in limits if limit >= LEAST_GROWTH * self.r_max]
        before = max((limit for limit in limits if limit < self.r_max), default=self.r_max / REACH_OF_FINAL)
        if not finer or not agreement.goes_on(before, self.r_max):
            return self
        r_max = min(finer)
        told_A = (env.length_A / r for r in (self.r_max, r_max))
        message = "Half maps agree at {:.1f} Å: on to {:.1f} Å".format(*told_A)
        news = News(env.final_stage, r_max, message=message)
        maps = self.maps.resized(box_of(r_max))
        return dataclasses.replace(self, maps=maps, r_max=r_max, of_halves=0, before=None, news=(*self.news, news))

    def judged(self, env: Env) -> HeldOut:
        """How well the pass that is done explains particles that are in none of the maps they were seen against."""
        # Without refinement maps are made of all but the held-out particles.
        others = slice(None) if self.refined.independent else env.held_out
        nll, empty, sphere = self.explained[others].unbind(1)
        return HeldOut.of(nll, empty, sphere, env.team)

    def _may_go_on(self, env: Env) -> bool:
        """Whether a pass like the one that is done is to follow, unless maps stand still."""
        if not self.refined.converged or not self.refined.independent:
            return False
        if self.of_halves == 0:
            return True
        done, most = (self.of_halves, MOST_HALF_PASSES) if self.are_apart else (self.common, MOST_COMMON_PASSES)
        # The first pass of a kind sees maps of another, and is no measure of what a pass gains.
        least = LEAST_RISE_OF_HALF_PASS if self.are_apart else LEAST_RISE_OF_PASS
        return done + 1 < most and (done == 0 or self._explains_more(env, least))

    def _stand_still(self, env: Env, volumes: Tensor) -> bool:
        """Whether maps (C, box, box, box) that a pass came to are those that it saw particles against."""
        return env.team.once_number(partial(likeness, self.maps.common, volumes, self.r_max)) > STANDS_STILL

    def _explains_more(self, env: Env, least: float) -> bool:
        """Whether particles, in none of the maps that they are seen against, are better explained than a pass ago.

        By `least` nats, and by what is no chance.
        """
        rise = self.nll_before - self.explained[:, 0]
        by_chance = LEAST_STANDARD_ERRORS * float(rise.std()) / len(rise) ** 0.5
        return bool(env.team.same(rise.mean()[None])[0] > max(least, by_chance))

    def _solved(self, env: Env, sums: FoldSums, start: Tensor) -> Solved:
        """The maps (C, box, box, box) of all particles; of halves that are apart theirs too, and their FSC."""
        whole, halves, curves, by_number = [], [], [], []
        for c, of_class in enumerate(start):
            parts = [sums.of_half(half, c) for half in range(2)]
            if self.are_apart:
                of_halves, fsc = _halves(env, parts, of_class)
                halves.append(of_halves)
                by_number.append(resolution_by_number(env, sums, c, of_class, fsc, self.r_max))
            else:
                assert self.solved is not None
                fsc = self.solved.fsc[c]
            curves.append(fsc)
            if env.settings.method == "auto":
                solve = solver_of(env, parts, of_class, fsc)
                whole.append(env.team.once(partial(solve, mean_of(parts), of_class), of_class))
            else:
                whole.append(of_class)
        if self.solved is None or halves:
            of_halves, numbers = torch.stack(halves, dim=1), torch.stack(by_number)
        else:
            of_halves, numbers = self.solved.half_volumes, self.solved.by_number
        return Solved(torch.stack(whole), of_halves, torch.stack(curves), numbers)

    def result(self, env: Env) -> FinalMaps:
        """The maps in the images' box, with the FSC that is claimed, once the passes are over."""
        assert self.solved is not None
        s = env.settings
        shares = self.poses.class_probability.mean(dim=0)
        order = shares.argsort(descending=True, stable=True)
        maps = []
        for c in order.tolist():
            solved = self.solved.volumes[c], *self.solved.half_volumes[:, c]
            whole, *halves = (fourier_resize(m.cpu().to(torch.float64), s.box, self.r_max) for m in solved)
            phases = env.generator("phases of half maps" + (f" of class {c}" if c else ""))
            agreement = compare_half_maps(halves[0], halves[1], s.pixel_size_A, self.r_max, phases)
            of_class = (halves[0], halves[1]), agreement, float(shares[c]), self.solved.by_number[c].cpu()
            maps.append(ClassMaps(whole, *of_class))
        in_order = self.poses.class_probability[:, order]
        return FinalMaps(maps, dataclasses.replace(self.poses, class_probability=in_order), env.folds.half)


def likeness(volumes: Tensor, others: Tensor, r_max: float) -> float:
    """Mean FSC up to r_max of maps (C, box, box, box) with others, of the class whose maps are least alike."""
    curves = [fourier_shell_correlation(a, b) for a, b in zip(volumes, others, strict=True)]
    return min(float(fsc[1 : int(r_max) + 1].mean()) for fsc in curves)


def maps_without(env: Env, sums: FoldSums, solved: Solved, r_max: float) -> Tensor:
    """The maps of all particles without each fold of each half, with local gains: (2, folds, C, box, box, box)."""
    maps = torch.zeros(2, FOLDS, *solved.volumes.shape, device=solved.volumes.device)
    for c, start in enumerate(solved.volumes):
        halves = [sums.of_half(half, c) for half in range(2)]
        solve = solver_of(env, halves, start, solved.fsc[c])
        assert solve.curvature is not None
        without = partial(_without, sums, halves, solve.of_fold(solve.curvature), start, c)
        found = solve_each(without, [*np.ndindex(2, FOLDS)], len(start), start.device)
        # How far the map of all particles is trusted, by the FSC of its halves.
        fsc = solved.fsc[c].clamp(0, 1)
        weighted = locally_weighted(found, 2 * fsc / (1 + fsc), solve.support, r_max)
        maps[:, :, c] = weighted.view(2, FOLDS, *start.shape)
    return maps


def _without(
    sums: FoldSums, halves: list[Quadratic], solve: MStep, start: Tensor, c: int, number: tuple[int, int]
) -> Tensor:
    half, fold = number
    return solve(mean_of([sums.without(half, fold, c), halves[1 - half]]), start)


def _halves(env: Env, parts: list[Quadratic], start: Tensor) -> tuple[Tensor, Tensor]:
    """The maps of the two halves (2, box, box, box) from their statistics, and their FSC without solvent.

    These maps are not empty in the solvent: where they agree is to be seen without a mask too, and a ball that fits the
    particle would be one. Each starts from nothing, or what both start from would be found in both.
    """
    nothing = torch.zeros_like(start)

    def solved(support: Tensor) -> Tensor:
        solve = MStep(support, positive=False)
        return env.team.once(
            lambda: solve_each(lambda part: solve(part, nothing), parts, len(start), start.device),
            torch.stack([nothing, nothing]),
        )

    fsc = fourier_shell_correlation(*solved(particle_support(env, start)))
    return solved(env.wide_support(len(start))), env.team.same(fsc)


def solver_of(env: Env, halves: list[Quadratic], start: Tensor, fsc: Tensor) -> MStep:
    """What solves for maps of all particles, from the mean of both halves' statistics: empty in the solvent."""
    particle = particle_support(env, start)
    curvature = Curvature.of(mean_of(halves).kernel, particle)
    return MStep(particle, positive=False, shell_ridge=wiener_ridge(curvature.along, fsc), curvature=curvature)
