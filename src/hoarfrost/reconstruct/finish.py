"""The final pass: every particle once against the finished map, for its pose, and for the map of all particles.

The particles fall into two random halves whose statistics give a map each. Both used poses found with one common map,
so their FSC is an upper bound of what independent halves would show, and the resolution read from it is optimistic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.fourier import fourier_resize
from hoarfrost.fsc import fourier_shell_correlation, resolution_A
from hoarfrost.reconstruct.loop import Optimised, Reconstruction
from hoarfrost.reconstruct.m_step import MStep

FSC_THRESHOLD = 0.143


@dataclass(frozen=True)
class FinalPass:
    """Maps in the images' box (N, N, N) and what is known of each of n particles, in the order of the STAR file.

    `rotations` (n, 3, 3) and `shifts_A` (n, 2): the most probable pose of the quadrature; `probability` (n,): its
    posterior probability; `log_evidence` (n,): log p(Ĩ | V) in nats. `fsc` is between the two half maps.
    """

    volume: Tensor
    half_volumes: tuple[Tensor, Tensor]
    fsc: Tensor
    resolution_A: float
    rotations: Tensor
    shifts_A: Tensor
    probability: Tensor
    log_evidence: Tensor


def final_pass(run: Reconstruction, optimised: Optimised) -> FinalPass:
    """E-step over all particles with the map fixed, then one M-step for the whole and one for each half."""
    s, band, volume = run.settings, optimised.band, optimised.volume
    run.say("Last pass over all particles, for their poses and the final map", len(s.stages_r_max))
    n = s.n_particles
    halves = (torch.randperm(n, generator=run.generator("halves")) % 2).bool()
    rotations = band.poses.orientations.rotations()
    shifts_A = band.poses.shifts.shifts_px * s.pixel_size_A
    found_rotations, found_shifts = torch.empty(n, 3, 3, dtype=torch.float64), torch.empty(n, 2, dtype=torch.float64)
    probability, log_evidence = torch.empty(n, dtype=torch.float64), torch.empty(n, dtype=torch.float64)
    numerators = torch.zeros(2, band.operator.n_slices, band.disc.size, dtype=torch.complex64, device=band.device)
    weights = torch.zeros(2, band.operator.n_slices, band.disc.size, device=band.device)
    slices = band.operator.slices(volume)
    done = 0
    for half in (0, 1):
        members = (halves == bool(half)).nonzero().squeeze(1)
        for first in range(0, len(members), s.batch_size):
            indices = members[first : first + s.batch_size]
            posterior = band.posterior_of(slices, run.source.images(indices, band.disc), statistics=True)
            assert posterior.numerator is not None
            assert posterior.weight is not None
            numerators[half] += posterior.numerator
            weights[half] += posterior.weight
            found_rotations[indices] = rotations[posterior.best_node.cpu()]
            found_shifts[indices] = shifts_A[posterior.best_shift.cpu()]
            probability[indices] = posterior.best_probability.cpu().to(torch.float64)
            log_evidence[indices] = posterior.log_evidence.cpu()
            run.image_gradients += len(indices)
            done += len(indices)
            run.report_final_pass(band, done / n)

    solve = MStep(band.support(run.diameter))
    parts = [band.quadratic_of(numerators[half], weights[half], n / 2) for half in (0, 1)]
    whole = ((parts[0][0] + parts[1][0]) / 2, (parts[0][1] + parts[1][1]) / 2)
    final = solve(whole, volume) if s.method == "auto" else volume
    # Each half starts from nothing, or what both start from would be found in both.
    half_maps = [solve(part, torch.zeros_like(volume)) for part in parts]
    maps = [fourier_resize(m.cpu().to(torch.float64), s.box, band.r_max) for m in (final, *half_maps)]
    fsc = fourier_shell_correlation(maps[1], maps[2])
    limit_A = s.box * s.pixel_size_A / band.r_max
    resolution = max(resolution_A(fsc, s.box, s.pixel_size_A, FSC_THRESHOLD), limit_A)
    return FinalPass(
        maps[0], (maps[1], maps[2]), fsc, resolution, found_rotations, found_shifts, probability, log_evidence
    )
