"""The final passes over all particles: one tells how far the halves agree, the others give their poses and the map.

In the first every particle is seen against the map of its half, without its fold. The FSC of the two half maps that it
gives is honest where the halves were refined apart, and is what is claimed. Then each is seen against the common map of
all folds but its own, which is less noisy than that of a half, so that poses are truer, and with them the map, until it
stands still. Half maps of these poses would agree better than they should; how far each shell is trusted stays what the
first pass says.

Where there was no refinement the halves have used poses found with one common map all along: one pass does, and the FSC
is an upper bound of what independent halves would show.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor

from hoarfrost.evaluation.half_maps import HalfMapFSC, compare_half_maps
from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.model.all_poses.band import VOLUME_MARGIN
from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.estimate.folds import FOLDS, FoldSums, Quadratic, common, mean, resized
from hoarfrost.reconstruction.estimate.junk import Junk
from hoarfrost.reconstruction.estimate.m_step import MStep, wiener_ridge
from hoarfrost.reconstruction.refinement.march import Refined
from hoarfrost.reconstruction.refinement.sweep import Refinement
from hoarfrost.reconstruction.refinement.visit import Visit
from hoarfrost.reconstruction.schedule import (
    MOST_COMMON_PASSES,
    STANDS_STILL,
    r_max_of_final,
    share_of_sweeps,
)
from hoarfrost.reconstruction.starts.loop import Reconstruction
from hoarfrost.reconstruction.state.checkpoints import KeptWhole, State


@dataclass(frozen=True)
class ClassMaps:
    """Maps of one class in the images' box (N, N, N), how well the halves agree, and its `share` of the particles."""

    volume: Tensor
    half_volumes: tuple[Tensor, Tensor]
    halves: HalfMapFSC
    share: float


@dataclass(frozen=True)
class FinalPass:
    """The maps of all classes, the largest first, and what is known of n particles, in the order of the STAR file.

    `class_probability` (n, C): that the particle shows each class, whose poses follow for the most probable one.
    `rotations` (n, 3, 3) and `shifts_A` (n, 2): the best pose of the most probable mode; `probability` (n,): that
    mode's share of the posterior; `log_evidence` (n,): log p(Ĩ | V) in nats; `junk` (n,): the probability that there is
    no particle, zero without refinement.
    """

    maps: list[ClassMaps]
    class_probability: Tensor
    rotations: Tensor
    shifts_A: Tensor
    probability: Tensor
    log_evidence: Tensor
    junk: Tensor


@dataclass(frozen=True)
class _Turn:
    """Which pass it is, if more can follow, and the FSC (C, s) of halves by which it trusts shells; None: its own."""

    number: int
    is_last: bool
    fsc: Tensor | None = None

    def share_done(self, done: float) -> float:
        """How much of the passes is done, when so much of this one is."""
        return done if self.number == 0 and self.is_last else share_of_sweeps(self.number + done)


@dataclass(frozen=True)
class _Passed(KeptWhole):
    """What a pass comes to: maps (C, box, box, box) of all particles, of the halves (two of them), poses by column.

    `without` (2, folds, C, box, box, box) are those of all but one fold of one half, empty where no pass is to follow.
    `fsc` (C, box // 2 + 1) is that of the halves without their solvent. Where it was given there are no half maps.
    """

    volumes: Tensor
    without: Tensor
    half_volumes: tuple[Tensor, ...]
    fsc: Tensor
    columns: tuple[Tensor, ...]

    @property
    def is_last(self) -> bool:
        """Whether no pass is to follow."""
        return self.without.numel() == 0

    @classmethod
    def restored(cls, state: State) -> Self:
        """The one whose state that was."""
        return cls(**{**state, "half_volumes": tuple(state["half_volumes"]), "columns": tuple(state["columns"])})


def final_passes(run: Reconstruction, refinement: Refinement, refined: Refined) -> FinalPass:
    """E-steps over all particles with the maps fixed, each with an M-step for the whole and one for each half."""
    s, checkpoints = run.settings, run.checkpoints
    r_max = r_max_of_final(refined.r_max, s.refined_r_max) if refined.independent else refined.r_max
    box = 2 * int(r_max) + VOLUME_MARGIN if refined.independent else refined.volumes.shape[-1]
    volumes = resized(refined.volumes, box)
    refinement.effort = refinement.effort.thorough()
    turn = _Turn(0, is_last=not refined.independent)
    apart = checkpoints.once("pass of halves", lambda: _pass(run, refinement, volumes, r_max, turn), _Passed)
    found = _passes_of_all(run, refinement, refined, r_max, apart)
    class_probability, *columns = found.columns
    shares = class_probability.mean(dim=0)
    order = shares.argsort(descending=True, stable=True)
    maps = []
    for c in order.tolist():
        solved = found.volumes[c], apart.half_volumes[0][c], apart.half_volumes[1][c]
        whole, *halves = (fourier_resize(m.cpu().to(torch.float64), s.box, r_max) for m in solved)
        phases = run.generator("phases of half maps" + (f" of class {c}" if c else ""))
        agreement = compare_half_maps(halves[0], halves[1], s.pixel_size_A, r_max, phases)
        maps.append(ClassMaps(whole, (halves[0], halves[1]), agreement, float(shares[c])))
    return FinalPass(maps, class_probability[:, order], *columns)


def _passes_of_all(
    run: Reconstruction, refinement: Refinement, refined: Refined, r_max: float, apart: _Passed
) -> _Passed:
    """All particles against the common map, again and again until it stands still; once where the run is to end."""
    number, found = 0, apart
    with run.checkpoints.part("passes of all", lambda: {"number": number, "found": found.state()}) as kept:
        if kept is not None:
            number, found = kept["number"], _Passed.restored(kept["found"])
        while not found.is_last:
            is_last = number + 1 == MOST_COMMON_PASSES or not refined.converged
            found = _pass(run, refinement, found.without, r_max, _Turn(number + 1, is_last, apart.fsc))
            number += 1
    return found


def likeness(volumes: Tensor, others: Tensor, r_max: float) -> float:
    """Mean FSC up to r_max of maps (C, box, box, box) with others, of the class whose maps are least alike."""
    curves = [fourier_shell_correlation(a, b) for a, b in zip(volumes, others, strict=True)]
    return min(float(fsc[1 : int(r_max) + 1].mean()) for fsc in curves)


def _pass(run: Reconstruction, refinement: Refinement, volumes: Tensor, r_max: float, turn: _Turn) -> _Passed:
    """All particles, those of each fold against maps that leave it out: (2, folds, C, box, box, box)."""
    s = run.settings
    n, box = s.n_particles, volumes.shape[-1]
    poses, sums, done = _Poses(n, s.classes), FoldSums(), 0
    with run.checkpoints.part(
        "last pass", lambda: {"poses": poses.state(run.team), "sums": sums.state(), "done": done}
    ) as kept:
        if kept is None:
            purpose = "half maps" if turn.fsc is None else "their poses and the final map"
            run.say(f"Pass over all particles, for {purpose}", run.final_stage, r_max)
        else:
            poses.restore(kept["poses"], run.team)
            sums.restore(kept["sums"])
            done = kept["done"]
        for visit in refinement.add_up_folds(volumes, r_max, box, torch.arange(n), sums):
            poses.note(visit, refinement.junk, s.pixel_size_A, s.shift_extent_A)
            run.image_gradients += len(visit.everyone)
            done += len(visit.everyone)
            run.report(run.final_stage, r_max, turn.share_done(done / n))
            run.checkpoints.offer()
    run.team.sum_(*poses.columns)
    refinement.junk.learn()

    found, curves = [], []
    start = common(volumes)
    for c in range(s.classes):
        parts = [sums.of_half(half, c) for half in range(2)]
        halves, curve = ((), turn.fsc[c]) if turn.fsc is not None else _halves(run, refinement, parts, start[c])
        if s.method == "auto":
            solve = _solver(refinement, parts, start[c], curve)
            whole = run.team.from_first(partial(solve, mean(parts), start[c]), start[c])
        else:
            whole = start[c]
        found.append(torch.stack([whole, *halves]))
        curves.append(curve)
    whole, *half_volumes = torch.stack(found, dim=1)
    fsc = torch.stack(curves)
    stands_still = partial(likeness, start, whole, r_max)
    if turn.is_last or (turn.number > 0 and run.team.number_from_first(stands_still) > STANDS_STILL):
        return _Passed(whole, volumes[:0], tuple(half_volumes), fsc, poses.columns)
    without = run.team.from_first(partial(_without, refinement, sums, whole, fsc), volumes)
    return _Passed(whole, without, tuple(half_volumes), fsc, poses.columns)


def _without(refinement: Refinement, sums: FoldSums, whole: Tensor, fsc: Tensor) -> Tensor:
    """The maps of all particles (C, box, box, box), without each fold of each half: (2, folds, C, box, box, box)."""
    maps = torch.zeros(2, FOLDS, *whole.shape, device=whole.device)
    for c, start in enumerate(whole):
        halves = [sums.of_half(half, c) for half in range(2)]
        solve = _solver(refinement, halves, start, fsc[c])
        for half, fold in itertools.product(range(2), range(FOLDS)):
            maps[half, fold, c] = solve(mean([sums.without(half, fold, c), halves[1 - half]]), start)
    return maps


def _halves(
    run: Reconstruction, refinement: Refinement, parts: list[Quadratic], start: Tensor
) -> tuple[Tensor, Tensor]:
    """The maps of the two halves (2, box, box, box) from their statistics, and their FSC without solvent.

    These maps are not empty in the solvent: where they agree is to be seen without a mask too. Each starts from
    nothing, or what both start from would be found in both.
    """
    nothing = torch.zeros_like(start)

    def solved(support: Tensor) -> Tensor:
        solve = MStep(support, positive=False)
        return run.team.from_first(
            lambda: torch.stack([solve(part, nothing) for part in parts]), torch.stack([nothing, nothing])
        )

    fsc = fourier_shell_correlation(*solved(refinement.particle(start)))
    return solved(refinement.support(len(start))), run.team.from_first(lambda: fsc, fsc)


def _solver(refinement: Refinement, halves: list[Quadratic], start: Tensor, fsc: Tensor) -> MStep:
    """What solves for maps of all particles, from the mean of both halves' statistics: empty in the solvent."""
    particle = refinement.particle(start)
    return MStep(particle, positive=False, shell_ridge=wiener_ridge(halves, fsc, particle))


class _Poses:
    """The columns of `FinalPass`; each process fills in its share, and leaves zeros elsewhere."""

    def __init__(self, n: int, classes: int) -> None:
        self.class_probability = torch.zeros(n, classes, dtype=torch.float64)
        self.rotations = torch.zeros(n, 3, 3, dtype=torch.float64)
        self.shifts_A = torch.zeros(n, 2, dtype=torch.float64)
        self.probability, self.log_evidence, self.junk = torch.zeros(3, n, dtype=torch.float64).unbind()

    @property
    def columns(self) -> tuple[Tensor, ...]:
        return (
            self.class_probability,
            self.rotations,
            self.shifts_A,
            self.probability,
            self.log_evidence,
            self.junk,
        )

    def state(self, team: Team) -> State:
        """What all processes have filled in, for `restore`."""
        columns = self.columns
        if team.size > 1:
            columns = tuple(column.clone() for column in columns)
            team.sum_(*columns)
        return {"columns": columns}

    def restore(self, state: State, team: Team) -> None:
        """Fill in what another one had, in the first process; the others' zeros add nothing to it."""
        if team.is_first:
            for column, filled in zip(self.columns, state["columns"], strict=True):
                column.copy_(filled)

    def note(self, visit: Visit, junk: Junk, pixel_size_A: float, shift_extent_A: float) -> None:
        """Fill in the process's share of a visit."""
        indices = visit.indices
        class_probability = visit.own_log_evidence.softmax(dim=1).cpu()
        self.class_probability[indices] = class_probability
        best_class = class_probability.argmax(dim=1)
        for c, looked_at in enumerate(visit.posteriors):
            if looked_at is None:
                continue
            rows, posterior = looked_at
            mine = (best_class[rows.cpu()] == c).nonzero().squeeze(1)
            here = indices[rows.cpu()[mine]]
            modes = posterior.modes[mine.to(rows.device)]
            self.rotations[here] = modes.rotations[:, 0].cpu()
            best = modes.shifts_px[:, 0].cpu() * pixel_size_A
            # The wall about the allowed shifts gives a little.
            self.shifts_A[here] = best * (shift_extent_A / best.norm(dim=1, keepdim=True).clamp(min=1e-9)).clamp(max=1)
            of_class = class_probability[rows.cpu()[mine], c]
            self.probability[here] = modes.share()[:, 0].cpu().to(torch.float64) * of_class
        log_evidence = visit.own_log_evidence.logsumexp(dim=1)
        self.log_evidence[indices] = log_evidence.cpu()
        self.junk[indices] = junk.probability(visit.own_gain, visit.own_junk).cpu()
