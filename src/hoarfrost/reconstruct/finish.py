"""The final pass: every particle once against the finished map of its half, for its pose, and the map of all particles.

Where the halves were refined apart their FSC is honest. Where there was no refinement both used poses found with one
common map; then their FSC is an upper bound of what independent halves would show.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hoarfrost.evaluate.half_maps import HalfMapFSC, compare_half_maps
from hoarfrost.fourier import fourier_resize
from hoarfrost.fsc import fourier_shell_correlation
from hoarfrost.model.local_statistics import LocalStatistics
from hoarfrost.reconstruct.checkpoint import State
from hoarfrost.reconstruct.distribution import Team
from hoarfrost.reconstruct.junk import Junk
from hoarfrost.reconstruct.loop import Reconstruction
from hoarfrost.reconstruct.m_step import MStep, wiener_ridge
from hoarfrost.reconstruct.marching import LARGEST_PORTION
from hoarfrost.reconstruct.refine import Refined, Refinement
from hoarfrost.reconstruct.visit import Visit


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


def final_pass(run: Reconstruction, refinement: Refinement, refined: Refined) -> FinalPass:
    """E-step over all particles with the maps fixed, then one M-step for the whole and one for each half."""
    s, r_max = run.settings, refined.r_max
    n, box = s.n_particles, refined.volumes[0].shape[-1]
    poses = _Poses(n, s.classes)
    members_of = [(refinement.in_second_half == second).nonzero().squeeze(1) for second in (False, True)]
    portions = [(half, members) for half in (0, 1) for members in torch.split(members_of[half], LARGEST_PORTION)]
    # Of each half, of each class.
    sums: list[list[tuple[Tensor, Tensor]]] = [[], []]
    n_portions = done = 0
    with run.checkpoints.part(
        "last pass", lambda: {"poses": poses.state(run.team), "sums": sums, "portions": n_portions, "done": done}
    ) as kept:
        if kept is None:
            run.say("Last pass over all particles, for their poses and the final map", run.final_stage, r_max)
        else:
            poses.restore(kept["poses"], run.team)
            sums = [[(linear, kernel) for linear, kernel in of_half] for of_half in kept["sums"]]
            n_portions, done = kept["portions"], kept["done"]
        for half, members in portions[n_portions:]:
            volumes = refined.volumes[half]
            statistics = [LocalStatistics(box, s.box, volumes.device, run.group) for _ in volumes]
            for visit in refinement.add_up(volumes, r_max, members, statistics):
                poses.note(visit, refinement.junk, s.pixel_size_A, s.shift_extent_A)
                run.image_gradients += len(visit.everyone)
                done += len(visit.everyone)
                run.report(run.final_stage, r_max, done / n)
                run.checkpoints.offer()
            for c in range(s.classes):
                # Taken from the list, or the grids of all classes would be in memory to the end.
                part = statistics.pop(0).quadratic(len(members_of[half]))
                run.team.sum_(*part)
                if c == len(sums[half]):
                    sums[half].append(part)
                else:
                    sums[half][c] = sums[half][c][0] + part[0], sums[half][c][1] + part[1]
            n_portions += 1
    run.team.sum_(*poses.columns)

    support = refinement.support(box)
    shares = poses.class_probability.mean(dim=0)
    order = shares.argsort(descending=True, stable=True)
    maps = []
    for c in order.tolist():
        start = (refined.volumes[0][c] + refined.volumes[1][c]) / 2
        solved = run.team.from_first(
            partial(_solve, [of_half[c] for of_half in sums], support, start, refinement, s.method),
            support.new_empty(3, *support.shape),
        )
        whole, *halves = (fourier_resize(m.cpu().to(torch.float64), s.box, r_max) for m in solved)
        phases = run.generator("phases of half maps" + (f" of class {c}" if c else ""))
        agreement = compare_half_maps(halves[0], halves[1], s.pixel_size_A, r_max, phases)
        maps.append(ClassMaps(whole, (halves[0], halves[1]), agreement, float(shares[c])))
    return FinalPass(maps, poses.class_probability[:, order], *poses.columns[1:])


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


def _solve(
    parts: list[tuple[Tensor, Tensor]], support: Tensor, start: Tensor, refinement: Refinement, method: str
) -> Tensor:
    """The map of all particles and those of the two halves (3, box, box, box), from the statistics of each half.

    The map of all is empty in the solvent. The halves are not: where they agree is to be seen without a mask too.
    """
    # Each half starts from nothing, or what both start from would be found in both.
    half_maps = [MStep(support, positive=False)(part, torch.zeros_like(support)) for part in parts]
    final = start
    if method == "auto":
        particle = refinement.particle(start)
        within = [MStep(particle, positive=False)(part, torch.zeros_like(support)) for part in parts]
        ridge = wiener_ridge(parts, fourier_shell_correlation(*within), particle)
        (linear, kernel), (other_linear, other_kernel) = parts
        solve = MStep(particle, positive=False, shell_ridge=ridge)
        final = solve(((linear + other_linear) / 2, (kernel + other_kernel) / 2), final)
    return torch.stack([final, *half_maps])
