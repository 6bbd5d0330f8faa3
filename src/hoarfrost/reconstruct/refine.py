"""Refinement: sweeps over the particles at ever higher band limits, until the data hold no more detail.

Each sweep is an E-step near the few poses of each image that matter (`local_e_step`) and an M-step on what it found. A
random share of the images is searched everywhere again in each sweep, so that none stays locked into a wrong pose.
After each band limit a spot check (`spot_check`) tells what these economies cost, and doubles the effort if that is too
much.

From the start of refinement the particles form two halves with a map each, which never meet above the band limit that
refinement began with (the "gold standard": Scheres & Chen 2012, Nat. Methods 9, 853). So their FSC tells signal from
fitted noise: it sets how much each shell is trusted, and ends the march where it comes down to 0.143.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hoarfrost.evaluate.half_maps import FSC_THRESHOLD
from hoarfrost.fourier import FourierDisc, fourier_resize, radius_grid
from hoarfrost.fsc import fourier_shell_correlation
from hoarfrost.model.band import VOLUME_MARGIN
from hoarfrost.model.likelihood import WhitenedImages
from hoarfrost.model.local_posterior import Draws
from hoarfrost.model.local_statistics import LocalStatistics
from hoarfrost.model.mode_memory import ModeMemory
from hoarfrost.model.modes import Modes
from hoarfrost.reconstruct import spot_check
from hoarfrost.reconstruct.junk import JunkShare
from hoarfrost.reconstruct.local_e_step import Effort, LocalEStep, LocalPosterior
from hoarfrost.reconstruct.loop import HeldOut, Optimised, Reconstruction
from hoarfrost.reconstruct.m_step import MStep, filter_shells
from hoarfrost.reconstruct.marching import is_last_sweep, share_of_sweeps, sweep_size
from hoarfrost.reconstruct.spot_check import SumError

KEPT_MODES = 4
SEARCHED_SHARE = 0.25
BATCH_SIZE = 100
# Band limits nearer to that of the sums over all poses are left out.
LEAST_GROWTH = 1.1
EDGE_SHELLS = 2


@dataclass(frozen=True)
class Visit:
    """A batch of particles after its E-step: this process's share of it, and what is known of the whole.

    `indices`, `images` and `posterior` are of the share; `everyone` (n,) are the indices of all, with their
    `log_evidence`, `log_constant` and effective number of modes `ess`, (n,) float64.
    """

    indices: Tensor
    images: WhitenedImages
    posterior: LocalPosterior
    everyone: Tensor
    log_evidence: Tensor
    log_constant: Tensor
    ess: Tensor


@dataclass(frozen=True)
class Refined:
    """Where refinement ended: the map of each half (box, box, box) up to `r_max`.

    `independent` tells whether the halves were refined apart; without any refinement both maps are the start.
    `converged` is False where the epochs that the user allows ended it.
    """

    volumes: tuple[Tensor, Tensor]
    r_max: float
    independent: bool
    converged: bool


class Refinement:
    """State of a refinement: the half of every particle, the modes of those seen so far, and the generators."""

    def __init__(self, run: Reconstruction) -> None:
        self.run = run
        self.coarse = run.make_band(0, draw=-1)
        self.effort = Effort()
        n = run.settings.n_particles
        self.modes = ModeMemory(n, KEPT_MODES, run.settings.device)
        self.in_second_half = (torch.randperm(n, generator=run.generator("halves")) % 2).bool()
        self._generator = run.generator("refinement")
        self._queue = run.training[:0]
        self.junk = JunkShare()

    def march(self, start: Optimised) -> Refined:
        """Through the local stages, until the half maps differ at the band limit."""
        s = self.run.settings
        first = s.stages_r_max[start.stage]
        found = Refined((start.volume, start.volume), first, independent=False, converged=start.converged)
        for number, r_max in enumerate(s.refined_r_max):
            if r_max < LEAST_GROWTH * first or self.run.out_of_epochs():
                continue
            if not found.independent:
                self.junk.begin()
            stage = len(s.stages_r_max) + number
            volumes, fsc = found.volumes, torch.zeros(0)
            gains: list[float] = []
            while not is_last_sweep(gains):
                volumes, fsc, gain = self._sweep(stage, r_max, volumes, len(gains))
                gains.append(gain)
            found = Refined(volumes, r_max, independent=True, converged=not self.run.out_of_epochs())
            common = (volumes[0] + volumes[1]) / 2
            sum_error = self.spot_check(common, r_max, stage)
            self.run.report(stage, r_max, 1.0, judged=self.judge(common, r_max), sum_error=sum_error)
            edge = fsc[math.floor(r_max) - EDGE_SHELLS + 1 : math.floor(r_max) + 1].mean()
            if edge < FSC_THRESHOLD:
                limit_A = s.box * s.pixel_size_A / r_max
                self.run.say(f"Half maps refined apart do not agree at {limit_A:.1f} Å: no more detail", stage)
                self.run.share_done.skip_to_last(stage + 1)
                break
        return found

    def e_step(self, volume: Tensor, r_max: float, effort: Effort | None = None) -> LocalEStep:
        """The posterior under a map up to r_max."""
        disc = FourierDisc(self.run.settings.box, r_max)
        return LocalEStep(volume, disc, self.coarse, self.run.pose_prior, effort or self.effort, self._generator)

    def judge(self, volume: Tensor, r_max: float) -> HeldOut:
        """How well a map explains the held-out particles, whose poses are looked for everywhere."""
        e_step = self.e_step(volume, r_max)
        nll, empty = [], []
        for visit in self.visit(e_step, self.run.held_out, searched_share=1.0):
            nll.append(-visit.log_evidence)
            empty.append(-visit.log_constant)
        return HeldOut.of(torch.cat(nll), torch.cat(empty), self.run.team)

    def spot_check(self, volume: Tensor, r_max: float, stage: int) -> SumError:
        """The error of a sweep's sums on random training particles; a sweep that misses too much tries harder next."""
        order = torch.randperm(len(self.run.training), generator=self._generator)
        members = self.run.training[order[: spot_check.N_IMAGES]]
        found = [v.log_evidence for v in self.visit(self.e_step(volume, r_max), members)]
        thorough = self.e_step(volume, r_max, spot_check.THOROUGH)
        sure = [v.log_evidence for v in self.visit(thorough, members, searched_share=1.0)]
        error = SumError.of(torch.cat(found), torch.cat(sure))
        if error.exceeds_budget:
            self.effort = self.effort.doubled()
            self.run.say(f"Sums miss {-error.mean:.1f} nats an image: twice as many poses are followed now", stage)
        return error

    def visit(self, e_step: LocalEStep, members: Tensor, searched_share: float = SEARCHED_SHARE) -> Iterator[Visit]:
        """E-step over the particles `members`, a batch for each process at a time.

        Random numbers go with a particle's place among the members, so that it does not matter who visits it.
        """
        team = self.run.team
        search = torch.rand(len(members), generator=self._generator) < searched_share
        n_batches = math.ceil(len(members) / (BATCH_SIZE * team.size))
        batches = members.tensor_split(n_batches)
        stream = self.run.source.stream([team.share(batch) for batch in batches], e_step.model.disc)
        for everyone, searched, (indices, images) in zip(batches, search.tensor_split(n_batches), stream, strict=True):
            first, last = team.bounds(len(everyone))
            e_step.skip(first)
            posterior = e_step(images, self.modes[indices], searched[first:last].to(images.data.device))
            e_step.skip(len(everyone) - last)
            self.modes[indices] = posterior.modes
            ess = 1 / posterior.modes.share().square().sum(dim=1)
            each = torch.stack([posterior.log_evidence, images.log_constant, ess.to(torch.float64)], dim=1)
            packed = self.modes[indices].packed()
            rows = team.gather(torch.cat([each, packed.flatten(1)], dim=1), len(everyone))
            self.modes[everyone] = Modes.unpacked(rows[:, 3:].view(-1, *packed.shape[1:]))
            yield Visit(indices, images, posterior, everyone, *rows[:, :3].unbind(1))

    def without_junk(self, visit: Visit) -> Draws:
        """The poses of a visit's images, each image with the probability that it holds a particle."""
        self.junk.count(self.junk.probability(visit.log_evidence, visit.log_constant))
        junk = self.junk.probability(visit.posterior.log_evidence, visit.images.log_constant)
        return visit.posterior.draws.weighted(1 - junk)

    def support(self, box: int) -> Tensor:
        """A ball of ones of the particle's diameter: real (box, box, box)."""
        inside = radius_grid(box, 3) <= self.run.diameter * box / 2
        return inside.to(self.run.settings.device, torch.float32)

    def _sweep(
        self, stage: int, r_max: float, volumes: tuple[Tensor, Tensor], sweep: int
    ) -> tuple[tuple[Tensor, Tensor], Tensor, float]:
        """New half maps (box, box, box), each filtered by what it can be trusted, and their FSC (box // 2 + 1,).

        Also how much better than an empty map the old ones explain an image, in nats.
        """
        run = self.run
        box = 2 * math.floor(r_max) + VOLUME_MARGIN
        solve = MStep(self.support(box), positive=False)
        members = self._next_members()
        maps, done, gain = [], 0, 0.0
        for half, volume in enumerate(volumes):
            e_step = self.e_step(volume, r_max)
            statistics = LocalStatistics(box, run.settings.box, volume.device, run.group)
            own = members[self.in_second_half[members] == bool(half)]
            for visit in self.visit(e_step, own):
                statistics.add(e_step.model, visit.images, self.without_junk(visit))
                done += len(visit.everyone)
                gain += float((visit.log_evidence - visit.log_constant).sum())
                run.iteration += 1
                run.image_gradients += len(visit.everyone)
                run.report(
                    stage,
                    r_max,
                    share_of_sweeps(sweep + done / len(members)),
                    batch_nll=-float(visit.log_evidence.mean()),
                    ess=float(visit.ess.median()),
                )
            quadratic, start = statistics.quadratic(len(own)), fourier_resize(volume, box)
            run.team.sum_(*quadratic)
            maps.append(run.team.from_first(partial(solve, quadratic, start), start))
            del e_step, statistics  # or both halves' would be in memory at once
        self.junk.learn()
        fsc = fourier_shell_correlation(*maps)
        fsc = run.team.from_first(lambda: fsc, fsc)
        joined = torch.stack(joined_below(filtered_halves(maps, fsc), self.coarse.r_max))
        first, second = run.team.from_first(lambda: joined, joined)
        return (first, second), fsc, gain / len(members)

    def _next_members(self) -> Tensor:
        """The particles of the next sweep: all there are to train on, or as many as a sweep takes of those left."""
        size = sweep_size(len(self.run.training))
        if len(self._queue) < size:
            order = torch.randperm(len(self.run.training), generator=self._generator)
            self._queue = torch.cat([self._queue, self.run.training[order]])
        members, self._queue = self._queue[:size], self._queue[size:]
        return members


def filtered_halves(maps: list[Tensor], fsc: Tensor) -> tuple[Tensor, Tensor]:
    """Each half map times its Wiener factor, signal / (signal + noise), which is the FSC itself."""
    first, second = (filter_shells(volume, fsc.clamp(min=0)) for volume in maps)
    return first, second


def joined_below(volumes: tuple[Tensor, Tensor], r_max: float) -> tuple[Tensor, Tensor]:
    """Both maps with their mean in the shells up to r_max, so that the halves' frames do not drift apart."""
    difference = (volumes[0] - volumes[1]) / 2
    shells = torch.arange(volumes[0].shape[0] // 2 + 1)
    shared = filter_shells(difference, (shells <= r_max).double())
    return volumes[0] - shared, volumes[1] + shared
