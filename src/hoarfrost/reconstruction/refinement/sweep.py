"""Refinement: what it knows of the particles, and its E-step over them.

Poses are looked for near the few of each image that matter (`local_e_step`). A random share of the images is searched
everywhere again in each sweep, so that none stays locked into a wrong pose. After each band limit a spot check
(`spot_check`) tells what these economies cost, and doubles the effort if that is too much. The march of sweeps is in
`sweeps`, the last passes in `finish`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hoarfrost.evaluation.particle_mask import make_particle_mask
from hoarfrost.maths.fourier import FourierDisc, radius_grid
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.few_poses.statistics import LocalStatistics
from hoarfrost.reconstruction.estimate.folds import Folds, FoldSums
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.estimate.junk import Junk
from hoarfrost.reconstruction.refinement import spot_check
from hoarfrost.reconstruction.refinement.drawn import Drawn, own_places
from hoarfrost.reconstruction.refinement.e_step import Effort, LocalEStep, coarse_slices_of
from hoarfrost.reconstruction.refinement.spot_check import SumError
from hoarfrost.reconstruction.refinement.visit import Known, Visit, add_draws, visit_batch
from hoarfrost.reconstruction.schedule import (
    LARGEST_PORTION,
    SEARCHED_SHARE,
    last_stage_of_starts,
    search_stage,
    sweep_size,
)
from hoarfrost.reconstruction.starts.loop import Reconstruction
from hoarfrost.reconstruction.state.checkpoints import State

BATCH_SIZE = 100


class Refinement:
    """State of a refinement: half and fold of each particle, what is known of those seen so far, and the generators."""

    def __init__(self, run: Reconstruction) -> None:
        self.run = run
        self._coarse: tuple[int, BandModel] | None = None
        self.effort = Effort()
        n = run.settings.n_particles
        self.known = Known(n, run.settings.classes, run.settings.device)
        self.folds = Folds(n, run.generator("halves"))
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

    def e_steps(
        self, volumes: Tensor, r_max: float, effort: Effort | None = None, slices: list[Tensor] | None = None
    ) -> list[LocalEStep]:
        """The posterior under the map of each class, (C, box, box, box), up to r_max.

        Poses are looked for with the coarse slices of these maps, unless others are given.
        """
        disc = FourierDisc(self.run.settings.box, r_max)
        if not self.junk.covers(disc):
            self.junk.cover(self.run.sample(disc), disc)
        coarse, prior, generator = self._coarse_below(r_max), self.run.pose_prior, self._generator
        if slices is None:
            slices = [coarse_slices_of(volume, coarse) for volume in volumes]
        given = disc, coarse, prior, effort or self.effort, generator
        return [LocalEStep(volume, *given, of_class) for volume, of_class in zip(volumes, slices, strict=True)]

    def _coarse_below(self, r_max: float) -> BandModel:
        """The quadrature to search all poses on: that of the last stage of such sums that a search can afford."""
        stage = search_stage(self.run.settings.stages_r_max, r_max)
        if self._coarse is None or self._coarse[0] != stage:
            self._coarse = stage, self.run.make_band(stage, draw=-1)
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
        self, volumes: Tensor, r_max: float, members: Tensor, statistics: list[LocalStatistics], slices: list[Tensor]
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
            e_steps = self.e_steps(volumes, r_max, slices=slices)
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

    def add_up_folds(self, volumes: Tensor, r_max: float, box: int, members: Tensor, sums: FoldSums) -> Iterator[Visit]:
        """Visit particles, each under the maps of its half without its fold, and add them to what `sums` has so far.

        Maps are (2, folds, C, n, n, n), statistics for some of `box` voxels.
        """
        run = self.run
        sizes = torch.bincount(self.folds.half[members], minlength=2).tolist()
        coarse, slices_of, slices = self._coarse_below(r_max), -1, list[Tensor]()
        for half, fold, some in self.folds.portions(members, LARGEST_PORTION)[sums.portions :]:
            if half != slices_of:
                # The poses that a search finds are judged by the map without the fold; to find them any map is good.
                slices_of, slices = half, [coarse_slices_of(of_class, coarse) for of_class in volumes[half].mean(dim=0)]
            of_classes = volumes[half, fold]
            statistics = [LocalStatistics(box, run.settings.box, v.device, run.group) for v in of_classes]
            yield from self.add_up(of_classes, r_max, some, statistics, slices)
            found = []
            while statistics:
                # Taken from the list, or the grids of all classes would be in memory to the end.
                quadratic = statistics.pop(0).quadratic(sizes[half])
                run.team.sum_(*quadratic)
                found.append(quadratic)
            sums.add(half, fold, found)

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

    def next_members(self) -> Tensor:
        """The particles of the next sweep: all there are to train on, or as many as a sweep takes of those left."""
        size = sweep_size(len(self.run.training))
        if len(self._queue) < size:
            order = torch.randperm(len(self.run.training), generator=self._generator)
            self._queue = torch.cat([self._queue, self.run.training[order]])
        members, self._queue = self._queue[:size], self._queue[size:]
        return members
