"""The final pass: every particle once against the finished map of its half, for its pose, and the map of all particles.

Where the halves were refined apart their FSC is honest. Where there was no refinement both used poses found with one
common map; then their FSC is an upper bound of what independent halves would show.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.evaluate.half_maps import HalfMapFSC, compare_half_maps
from hoarfrost.fourier import fourier_resize
from hoarfrost.fsc import fourier_shell_correlation
from hoarfrost.model.local_statistics import LocalStatistics
from hoarfrost.reconstruct.loop import Reconstruction
from hoarfrost.reconstruct.m_step import MStep, wiener_ridge
from hoarfrost.reconstruct.refine import Refined, Refinement


@dataclass(frozen=True)
class FinalPass:
    """Maps in the images' box (N, N, N) and what is known of each of n particles, in the order of the STAR file.

    `rotations` (n, 3, 3) and `shifts_A` (n, 2): the best pose of the most probable mode; `probability` (n,): that
    mode's share of the posterior; `log_evidence` (n,): log p(Ĩ | V) in nats; `junk` (n,): the probability that there is
    no particle, zero without refinement. `halves` tells how well the two half maps agree.
    """

    volume: Tensor
    half_volumes: tuple[Tensor, Tensor]
    halves: HalfMapFSC
    rotations: Tensor
    shifts_A: Tensor
    probability: Tensor
    log_evidence: Tensor
    junk: Tensor


def final_pass(run: Reconstruction, refinement: Refinement, refined: Refined) -> FinalPass:
    """E-step over all particles with the map fixed, then one M-step for the whole and one for each half."""
    s, r_max = run.settings, refined.r_max
    run.say("Last pass over all particles, for their poses and the final map", run.final_stage, r_max)
    n, box = s.n_particles, refined.volumes[0].shape[0]
    # Each process fills in its share, and zeros elsewhere.
    rotations, shifts_A = torch.zeros(n, 3, 3, dtype=torch.float64), torch.zeros(n, 2, dtype=torch.float64)
    probability, log_evidence, junk = torch.zeros(3, n, dtype=torch.float64).unbind()
    parts = []
    done = 0
    for half, volume in enumerate(refined.volumes):
        e_step = refinement.e_step(volume, r_max)
        statistics = LocalStatistics(box, s.box, volume.device, run.group)
        members = (refinement.in_second_half == bool(half)).nonzero().squeeze(1)
        for visit in refinement.visit(e_step, members):
            statistics.add(e_step.model, visit.images, refinement.without_junk(visit))
            indices, modes = visit.indices, visit.posterior.modes
            rotations[indices] = modes.rotations[:, 0].cpu()
            best = modes.shifts_px[:, 0].cpu() * s.pixel_size_A
            # The wall about the allowed shifts gives a little.
            shifts_A[indices] = best * (s.shift_extent_A / best.norm(dim=1, keepdim=True).clamp(min=1e-9)).clamp(max=1)
            probability[indices] = modes.share()[:, 0].cpu().to(torch.float64)
            log_evidence[indices] = visit.posterior.log_evidence.cpu()
            junk[indices] = refinement.junk.probability(visit.posterior.log_evidence, visit.images.log_constant).cpu()
            run.image_gradients += len(visit.everyone)
            done += len(visit.everyone)
            run.report(run.final_stage, r_max, done / n)
        part = statistics.quadratic(len(members))
        run.team.sum_(*part)
        parts.append(part)
        del e_step, statistics  # or both halves' would be in memory at once
    run.team.sum_(rotations, shifts_A, probability, log_evidence, junk)

    support = refinement.support(box)
    solved = run.team.from_first(
        lambda: torch.stack(_solve(parts, support, refined, s.method)), support.new_empty(3, *support.shape)
    )
    maps = [fourier_resize(m.cpu().to(torch.float64), s.box, r_max) for m in solved]
    halves = compare_half_maps(maps[1], maps[2], s.pixel_size_A, r_max, run.generator("phases of half maps"))
    return FinalPass(maps[0], (maps[1], maps[2]), halves, rotations, shifts_A, probability, log_evidence, junk)


def _solve(parts: list[tuple[Tensor, Tensor]], support: Tensor, refined: Refined, method: str) -> list[Tensor]:
    """The map of all particles and those of the two halves, from the statistics of each half."""
    # Each half starts from nothing, or what both start from would be found in both.
    half_maps = [MStep(support, positive=False)(part, torch.zeros_like(support)) for part in parts]
    final = (refined.volumes[0] + refined.volumes[1]) / 2
    if method == "auto":
        ridge = wiener_ridge(parts, fourier_shell_correlation(*half_maps), support)
        (linear, kernel), (other_linear, other_kernel) = parts
        solve = MStep(support, positive=False, shell_ridge=ridge)
        final = solve(((linear + other_linear) / 2, (kernel + other_kernel) / 2), final)
    return [final, *half_maps]
