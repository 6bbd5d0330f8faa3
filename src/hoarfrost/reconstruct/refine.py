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

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hoarfrost.evaluate.half_maps import FSC_THRESHOLD
from hoarfrost.evaluate.particle_mask import make_particle_mask
from hoarfrost.fourier import FourierDisc, fourier_resize, radius_grid
from hoarfrost.fsc import fourier_shell_correlation
from hoarfrost.model.band import VOLUME_MARGIN, BandModel
from hoarfrost.model.local_statistics import LocalStatistics
from hoarfrost.reconstruct import spot_check
from hoarfrost.reconstruct.checkpoint import State
from hoarfrost.reconstruct.drawn import Drawn, own_places
from hoarfrost.reconstruct.junk import Junk
from hoarfrost.reconstruct.local_e_step import Effort, LocalEStep
from hoarfrost.reconstruct.loop import Reconstruction
from hoarfrost.reconstruct.m_step import MStep, filter_shells
from hoarfrost.reconstruct.marching import (
    LEAST_GROWTH,
    is_last_sweep,
    last_stage_of_starts,
    search_stage,
    share_of_sweeps,
    sweep_size,
)
from hoarfrost.reconstruct.matches import matches_of_known
from hoarfrost.reconstruct.optimised import HeldOut, Optimised
from hoarfrost.reconstruct.spot_check import SumError
from hoarfrost.reconstruct.visit import Known, Visit, add_draws, visit_batch

SEARCHED_SHARE = 0.15
BATCH_SIZE = 100
EDGE_SHELLS = 2


@dataclass(frozen=True)
class Refined:
    """Where refinement ended: the maps of each half, of all classes (C, box, box, box), up to `r_max`.

    `independent` tells whether the halves were refined apart; without any refinement both maps are the start.
    `converged` is False where the epochs that the user allows ended it.
    """

    volumes: tuple[Tensor, Tensor]
    r_max: float
    independent: bool
    converged: bool

    def state(self) -> State:
        """All there is to know of it."""
        return dict(vars(self))

    @classmethod
    def restored(cls, state: State) -> Refined:
        """The one whose state that was."""
        return cls(**{**state, "volumes": tuple(state["volumes"])})


class Refinement:
    """State of a refinement: the half of every particle, what is known of those seen so far, and the generators."""

    def __init__(self, run: Reconstruction) -> None:
        self.run = run
        self._coarse: tuple[int, BandModel] | None = None
        self.effort = Effort()
        n = run.settings.n_particles
        self.known = Known(n, run.settings.classes, run.settings.device)
        self.in_second_half = (torch.randperm(n, generator=run.generator("halves")) % 2).bool()
        self._generator = run.generator("refinement")
        self._queue = run.training[:0]
        self.junk = Junk(run.source.mask_power)

    def state(self) -> State:
        """What is known of the particles, and what random choices follow from, for `restore`."""
        return {
            "effort": dict(vars(self.effort)),
            "known": self.known.state(),
            "generator": self._generator.get_state(),
            "queue": self._queue,
            "junk": self.junk.state(),
        }

    def restore(self, state: State) -> None:
        """Go on from where another refinement of the same run was."""
        self.effort = Effort(**state["effort"])
        self.known.restore(state["known"])
        self._generator.set_state(state["generator"])
        self._queue = state["queue"]
        self.junk.restore(state["junk"])

    @staticmethod
    @contextlib.contextmanager
    def of(run: Reconstruction) -> Iterator[Refinement]:
        """A refinement as a part of a run, begun or gone on with."""
        refinement = Refinement(run)
        with run.checkpoints.part("refinement", refinement.state) as kept:
            if kept is not None:
                refinement.restore(kept)
            yield refinement

    def march(self, start: Optimised, last_r_max: float = math.inf) -> Refined:
        """Through the local stages up to `last_r_max`, or until the half maps differ at the band limit.

        The last band limit is left to the final passes, which come to the same map there without its sweeps.
        """
        return self.run.checkpoints.once("march", partial(self._march, start, last_r_max), Refined)

    def _march(self, start: Optimised, last_r_max: float) -> Refined:
        s = self.run.settings
        first = s.stages_r_max[start.stage]
        found = Refined((start.volumes, start.volumes), first, independent=False, converged=start.converged)
        judged: HeldOut | None = None

        def state() -> State:
            return {"number": number, "found": found.state()}

        with self.run.checkpoints.part("band limits", state) as kept:
            if kept is None:
                self.known.log_shares = start.log_shares
            else:
                found = Refined.restored(kept["found"])
            for number, r_max in enumerate(s.refined_r_max):
                if kept is not None and number < kept["number"]:
                    continue
                if kept is None or number > kept["number"]:
                    if r_max < LEAST_GROWTH * first or self.run.out_of_epochs():
                        continue
                    is_for_final = number > 0 and number == len(s.refined_r_max) - 1
                    if found.independent and (r_max > last_r_max or is_for_final):
                        break
                    if not found.independent:
                        self.junk.begin()
                stage = len(s.stages_r_max) + number
                volumes, fsc = self._sweeps(stage, r_max, found.volumes)
                found = Refined(volumes, r_max, independent=True, converged=not self.run.out_of_epochs())
                common = (volumes[0] + volumes[1]) / 2
                sum_error = self.spot_check(common, r_max, stage)
                judged = self.judge(common, r_max)
                self.run.report(stage, r_max, 1.0, judged=judged, sum_error=sum_error)
                edge = fsc[:, math.floor(r_max) - EDGE_SHELLS + 1 : math.floor(r_max) + 1].mean(dim=1)
                if edge.max() < FSC_THRESHOLD:
                    limit_A = s.box * s.pixel_size_A / r_max
                    self.run.say(f"Half maps refined apart do not agree at {limit_A:.1f} Å: no more detail", stage)
                    self.run.share_done.skip_to_last(stage + 1)
                    break
        if judged is not None and judged.surely_below(start.gain):
            self.run.say(
                f"Refined, the map explains held-out particles less well than before ({judged.gain:z.1f} nats an "
                f"image, {start.gain:z.1f} before): its detail, or a symmetry that was imposed, may not be there",
                stage,
            )
        return found

    def _sweeps(self, stage: int, r_max: float, volumes: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Sweeps at one band limit, until the stage is over: new maps of both halves, and their FSC, as of `_sweep`."""
        fsc = torch.zeros(1, 0)
        gains: list[float] = []
        with self.run.checkpoints.part("sweeps", lambda: {"volumes": volumes, "gains": gains}) as kept:
            if kept is not None:
                volumes, gains = (kept["volumes"][0], kept["volumes"][1]), kept["gains"]
            while not is_last_sweep(gains):
                volumes, fsc, gain = self._sweep(stage, r_max, volumes, len(gains))
                gains.append(gain)
        return volumes, fsc

    def e_steps(self, volumes: Tensor, r_max: float, effort: Effort | None = None) -> list[LocalEStep]:
        """The posterior under the map of each class, (C, box, box, box), up to r_max."""
        disc = FourierDisc(self.run.settings.box, r_max)
        if not self.junk.covers(disc):
            self.junk.cover(self.run.sample(disc), disc)
        coarse, prior, generator = self._coarse_below(r_max), self.run.pose_prior, self._generator
        return [LocalEStep(v, disc, coarse, prior, effort or self.effort, generator) for v in volumes]

    def _coarse_below(self, r_max: float) -> BandModel:
        """The quadrature to search all poses on: that of the last stage of such sums that a search can afford."""
        stage = search_stage(self.run.settings.stages_r_max, r_max)
        if self._coarse is None or self._coarse[0] != stage:
            # Slices are taken of it twice a sweep, which is no reason to hold a matrix beside the grids of refinement.
            self._coarse = stage, self.run.make_band(stage, draw=-1, matrix_bytes=0)
        return self._coarse[1]

    def judge(self, volumes: Tensor, r_max: float) -> HeldOut:
        """How well maps explain the held-out particles, whose poses are looked for everywhere."""
        return HeldOut.of(*self.held_out_nll(volumes, r_max), self.run.team)

    def held_out_nll(self, volumes: Tensor, r_max: float) -> tuple[Tensor, Tensor]:
        """NLL of each held-out particle under maps (C, box, box, box), and under an empty one: (m,) each."""
        nll, empty = [], []
        for visit in self.visit(self.e_steps(volumes, r_max), self.run.held_out, searched_share=1.0):
            nll.append(-visit.log_evidence)
            empty.append(-visit.log_constant)
        return torch.cat(nll), torch.cat(empty)

    def spot_check(self, volumes: Tensor, r_max: float, stage: int) -> SumError:
        """The error of a sweep's sums on random training particles; a sweep that misses too much tries harder next."""
        order = torch.randperm(len(self.run.training), generator=self._generator)
        members = self.run.training[order[: spot_check.N_IMAGES]]
        found = [v.log_evidence for v in self.visit(self.e_steps(volumes, r_max), members)]
        thorough = self.e_steps(volumes, r_max, spot_check.THOROUGH)
        sure = [v.log_evidence for v in self.visit(thorough, members, searched_share=1.0)]
        error = SumError.of(torch.cat(found), torch.cat(sure))
        if error.exceeds_budget:
            self.effort = self.effort.doubled()
            self.run.say(f"Sums miss {-error.mean:.1f} nats an image: twice as many poses are followed now", stage)
        return error

    def visit(
        self, e_steps: list[LocalEStep], members: Tensor, searched_share: float = SEARCHED_SHARE, first_batch: int = 0
    ) -> Iterator[Visit]:
        """E-step over the particles `members`, a batch for each process at a time, from one of the batches on.

        Random numbers go with a particle's place among the members, so that it does not matter who visits it.
        """
        team = self.run.team
        search = torch.rand(len(members), generator=self._generator) < searched_share
        batches = self._batches(members)[first_batch:]
        searches = search.tensor_split(first_batch + len(batches))[first_batch:]
        stream = self.run.source.stream([team.share(batch) for batch in batches], e_steps[0].model.disc)
        for everyone, searched, (_, images) in zip(batches, searches, stream, strict=True):
            yield visit_batch(e_steps, self.known, everyone, searched, images, team, self.junk)

    def _batches(self, members: Tensor) -> tuple[Tensor, ...]:
        return members.tensor_split(math.ceil(len(members) / (BATCH_SIZE * self.run.team.size)))

    def add_up(
        self, volumes: Tensor, r_max: float, members: Tensor, statistics: list[LocalStatistics]
    ) -> Iterator[Visit]:
        """Visit particles under maps (C, box, box, box), and add them to the statistics of each class.

        A part of the run: after each visit a checkpoint may be offered.
        """
        team, checkpoints, batches = self.run.team, self.run.checkpoints, self._batches(members)
        drawn = Drawn(len(volumes), own_places(batches, team))
        begun = self._generator.get_state()
        with checkpoints.part("pass", lambda: {"generator": begun, "drawn": drawn.state(team)}) as kept:
            if kept is not None:
                # Who is searched for and the seeds of the E-steps are drawn as they were at first.
                begun = kept["generator"]
                self._generator.set_state(begun)
            e_steps = self.e_steps(volumes, r_max)
            if kept is not None:
                drawn.restore(kept["drawn"])
                done = [team.share(batch) for batch in batches[: drawn.batches]]
                stream = self.run.source.stream(done, e_steps[0].model.disc)
                for added, (_, images) in zip(drawn.added(), stream, strict=True):
                    add_draws(statistics, e_steps, images, added)
                for e_step, n_images in zip(e_steps, drawn.looked_at, strict=True):
                    e_step.skip(n_images)
            for visit in self.visit(e_steps, members, first_batch=drawn.batches):
                added = visit.add_to(statistics, e_steps, self.weights(visit, e_steps[0].model.disc))
                if checkpoints.is_on:
                    drawn.note(visit, added)
                yield visit

    def weights(self, visit: Visit, disc: FourierDisc) -> Tensor:
        """How much each of a visit's images counts for each class, (b, C): the probability that it shows it."""
        junk = self.junk.probability(visit.own_gain, visit.own_junk)
        sums = self.junk.sums_over(visit.images, disc, junk, visit.own_junk)
        self.run.team.sum_(sums)
        self.junk.count(sums, visit.lead)
        return visit.own_log_evidence.softmax(dim=1) * (1 - junk)[:, None]

    def support(self, box: int) -> Tensor:
        """A ball of ones of the particle's diameter: real (box, box, box)."""
        inside = radius_grid(box, 3) <= self.run.diameter * box / 2
        return inside.to(self.run.settings.device, torch.float32)

    def particle(self, volume: Tensor) -> Tensor:
        """Ones in and generously about the particle that a map (box, box, box) shows, zeros in the solvent."""
        s = self.run.settings
        r_low = s.stages_r_max[last_stage_of_starts(s.stages_r_max, s.refined_r_max)]
        return self.support(len(volume)) * (make_particle_mask(volume, r_low) > 0.5).to(volume)

    def _solved(self, statistics: tuple[Tensor, Tensor], start: Tensor) -> Tensor:
        """The map that statistics ask for, empty where the one that it starts from shows solvent.

        Of the noise in a ball most is in the solvent. On GroEL-GroES the mean FSC with the truth up to r_max 26.7 rises
        from 0.85 to 0.88 without it. Each half's map has a mask of its own, which tells it nothing of the other.
        """
        return MStep(self.particle(start), positive=False)(statistics, start)

    def _sweep(
        self, stage: int, r_max: float, volumes: tuple[Tensor, Tensor], sweep: int
    ) -> tuple[tuple[Tensor, Tensor], Tensor, float]:
        """New maps of both halves (C, box, box, box), filtered by what each can be trusted; FSC (C, box // 2 + 1).

        Also how much better than an empty map the old ones explain an image, in nats.
        """
        run = self.run
        box = 2 * math.floor(r_max) + VOLUME_MARGIN
        maps: list[Tensor] = []
        shares: list[Tensor] = []
        done, gain = 0, 0.0

        def state() -> State:
            return {"members": members, "maps": maps, "shares": shares, "done": done, "gain": gain}

        with run.checkpoints.part("sweep", state) as kept:
            if kept is None:
                members = self._next_members()
            else:
                members, maps, shares, done, gain = (kept[n] for n in ("members", "maps", "shares", "done", "gain"))
            for half in range(len(maps), 2):
                of_classes = volumes[half]
                statistics = [LocalStatistics(box, run.settings.box, of_classes.device, run.group) for _ in of_classes]
                own = members[self.in_second_half[members] == bool(half)]
                for visit in self.add_up(of_classes, r_max, own, statistics):
                    done += len(visit.everyone)
                    gain += float((visit.log_evidence - visit.log_constant).sum())
                    shares.append(visit.probability)
                    run.iteration += 1
                    run.image_gradients += len(visit.everyone)
                    run.report(
                        stage,
                        r_max,
                        share_of_sweeps(sweep + done / len(members)),
                        batch_nll=-float(visit.log_evidence.mean()),
                        ess=float(visit.ess.median()),
                    )
                    run.checkpoints.offer()
                found = []
                for volume in of_classes:
                    # Taken from the list, or the grids of all classes would be in memory to the end.
                    quadratic, start = statistics.pop(0).quadratic(len(own)), fourier_resize(volume, box)
                    run.team.sum_(*quadratic)
                    found.append(run.team.from_first(partial(self._solved, quadratic, start), start))
                maps.append(torch.stack(found))
        self.junk.learn()
        self.known.learn_shares(torch.cat(shares))
        fsc = torch.stack([fourier_shell_correlation(a, b) for a, b in zip(*maps, strict=True)])
        fsc = run.team.from_first(lambda: fsc, fsc)
        joined = torch.stack(joined_below(filtered_halves(maps, fsc), run.settings.stages_r_max[0]))
        first, second = run.team.from_first(lambda: joined, joined)
        find_matches = partial(matches_of_known, self.known, members, run.settings.pixel_size_A)
        run.live.offer(r_max, (first + second) / 2, self.known.log_shares, run.image_gradients, find_matches)
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
    """The maps of each half (C, box, box, box) times their Wiener factors, signal / (signal + noise): FSC (C, s)."""
    first, second = (
        torch.stack([filter_shells(volume, of.clamp(min=0)) for volume, of in zip(half, fsc, strict=True)])
        for half in maps
    )
    return first, second


def joined_below(volumes: tuple[Tensor, Tensor], r_max: float) -> tuple[Tensor, Tensor]:
    """Both halves' maps with their mean in the shells up to r_max, so that the halves' frames do not drift apart."""
    difference = (volumes[0] - volumes[1]) / 2
    low = (torch.arange(difference.shape[-1] // 2 + 1) <= r_max).double()
    shared = torch.stack([filter_shells(of_class, low) for of_class in difference])
    return volumes[0] - shared, volumes[1] + shared
