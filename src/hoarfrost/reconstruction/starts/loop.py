"""The one loop: stages of growing band limit, minibatches in each, held-out checks that decide what comes next."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc, fourier_resize
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.map_prior import ExponentialCubicPrior
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.optim.registry import METHODS, Facts
from hoarfrost.parallel.prefetch import prefetched
from hoarfrost.parallel.team import Team
from hoarfrost.particles.sampling import FixedMinibatchSampler, MinibatchSampler, split_held_out
from hoarfrost.particles.source import ParticleSource
from hoarfrost.reconstruction.estimate.folds import FOLDS
from hoarfrost.reconstruction.estimate.held_out import HeldOut, Optimised
from hoarfrost.reconstruction.estimate.junk import Junk
from hoarfrost.reconstruction.forecast import IMAGES_TO_TIME, Rates, expected_seconds, expected_starts, measure
from hoarfrost.reconstruction.refinement.spot_check import SumError
from hoarfrost.reconstruction.schedule import (
    LEAST_GAIN_TO_REFINE,
    Decision,
    StageControl,
    last_stage_of_starts,
    plan_stage,
)
from hoarfrost.reconstruction.settings.options import Settings
from hoarfrost.reconstruction.starts.annealing import WARM_SHARE, Annealing
from hoarfrost.reconstruction.starts.curvature import largest_curvature
from hoarfrost.reconstruction.starts.gradient import GradientStage, Objective, StageMethod
from hoarfrost.reconstruction.starts.initial_map import initial_volume
from hoarfrost.reconstruction.starts.online_em import AutoStage
from hoarfrost.reconstruction.starts.step_size import Start, base_rate, choose_rate
from hoarfrost.reconstruction.state.checkpoints import Checkpoints, State
from hoarfrost.reconstruction.watch.events import Event
from hoarfrost.reconstruction.watch.live import Live
from hoarfrost.reconstruction.watch.matches import N_MATCHES, Matches, matches_on_quadrature
from hoarfrost.reconstruction.watch.progress import ShareDone
from hoarfrost.symmetry.point_group import PointGroup

IMAGES_FOR_SCALE = 300


class Reconstruction:
    """State of one run: particles, split, counters. `optimise` is the loop; `report` receives every event.

    All processes of `team` are in the same state, and read their share of the particles. `checkpoints` are offered
    after each minibatch; none are written unless given.
    """

    def __init__(
        self,
        settings: Settings,
        source: ParticleSource,
        report: Callable[[Event], None],
        team: Team | None = None,
        live: Live | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.settings = settings
        self.source = source
        self.team = team or Team()
        self.live = live or Live()
        self.checkpoints = checkpoints or Checkpoints()
        self.checkpoints.say = self.say
        self._report = report
        self.started = time.monotonic()
        self.seconds_before = 0.0
        self.iteration = 0
        self.image_gradients = 0
        self.held_out, self.training = split_held_out(settings.n_particles, settings.held_out, settings.seed)
        self._sample = self.training[
            torch.randperm(len(self.training), generator=self.generator("scale"))[:IMAGES_FOR_SCALE]
        ]
        self.diameter = settings.diameter_A / (settings.box * settings.pixel_size_A)
        # `auto` begins without symmetry (`impose`).
        self.group = PointGroup("C1" if settings.method == "auto" else settings.symmetry)
        self.share_done = ShareDone(
            expected_seconds(settings, Rates()), len(settings.stages_r_max), expected_starts(settings)
        )
        self._spent_elsewhere = 0
        self.begin(0)

    def generator(self, name: str) -> torch.Generator:
        """The run's random generator for one purpose."""
        return named_generator(self.settings.seed, name)

    def begin(self, start: int) -> None:
        """Go back to nothing, for another random map, other minibatches and other grids of the same run."""
        self.start = start
        self._spent_elsewhere = self.image_gradients
        self._rate_factor = 1.0
        self._drawn: list[tuple[Tensor, int]] = []
        given = self.training, self.settings.batch_size, self.generator(self._of_start("minibatches"))
        is_auto = self.settings.method == "auto"
        self._sampler = MinibatchSampler(*given, folds=FOLDS) if is_auto else FixedMinibatchSampler(*given)
        self.folds = self._sampler.folds

    def _of_start(self, name: str) -> str:
        """The name of a random generator of the present start."""
        return f"{name} of start {self.start}" if self.start else name

    def state(self) -> State:
        """Counters and random choices, for `restore`."""
        return {
            "start": self.start,
            "iteration": self.iteration,
            "image_gradients": self.image_gradients,
            "spent_elsewhere": self._spent_elsewhere,
            "rate_factor": self._rate_factor,
            "drawn": self._drawn,
            "sampler": self._sampler.state(),
            "share_done": self.share_done.state(),
            "seconds": time.monotonic() - self.started,
        }

    def restore(self, state: State) -> None:
        """Go on from where another run with the same settings and particles was."""
        self.begin(state["start"])
        self.iteration, self.image_gradients = state["iteration"], state["image_gradients"]
        self._spent_elsewhere, self._rate_factor = state["spent_elsewhere"], state["rate_factor"]
        self._drawn = [(indices, number) for indices, number in state["drawn"]]
        self._sampler.restore(state["sampler"])
        self.share_done.restore(state["share_done"])
        self.seconds_before = state["seconds"]
        self.started = time.monotonic() - self.seconds_before

    def keep_to(self, symmetry: str) -> None:
        """From now on maps have the symmetry of that point group."""
        self.settings = self.settings.model_copy(update={"symmetry": symmetry})
        self.group = PointGroup(symmetry)

    def optimise(self, start: int = 0) -> Optimised:
        """From random start number `start` through the stages, to the map of the last whose held-out gain rose."""
        stages = self.settings.stages_r_max
        first_stage = 0
        best: Optimised | None = None

        def state() -> State:
            return {"stage": stage, "best": None if best is None else best.state()}

        with self.checkpoints.part(f"start {start}", state) as kept:
            if kept is None:
                self.begin(start)
            else:
                first_stage = kept["stage"]
                best = None if kept["best"] is None else Optimised.restored(kept["best"])
            method: StageMethod | None = None
            for stage in range(first_stage, len(stages)):
                band = self.make_band(stage)
                goes_on = kept is not None and method is None
                method = self._blank_stage(stage, band) if goes_on else self._start_stage(stage, band, method)
                gain = self.run_stage(stage, band, method)
                out_of_epochs = self.out_of_epochs()
                if best is not None and (gain is None or gain < best.gain):
                    if out_of_epochs:
                        best = dataclasses.replace(best, converged=False)
                        break
                    limit_A = self.settings.box * self.settings.pixel_size_A / stages[best.stage]
                    self.say(f"Detail beyond {limit_A:.1f} Å does not explain held-out particles any better", stage)
                    break
                gain = float("-inf") if gain is None else gain
                best = Optimised(method.volumes, method.log_shares, stage, gain, not out_of_epochs)
                if out_of_epochs:
                    break
                if self._may_refine(stage, best.gain):
                    self.share_done.skip_stages(self.start, stage + 1)
                    break
        assert best is not None
        return best

    def make_band(self, stage: int, draw: int = 0, *, is_warm: bool = False) -> BandModel:
        """The model at a stage's band limit, turned at random; coarser where `is_warm`."""
        s = self.settings
        rotation = random_rotations(1, self.generator(self._of_start(f"grid {stage} {draw}")))[0]
        given = s.box, s.stages_r_max[stage], self.pose_prior, rotation
        fine_to = WARM_SHARE * s.stages_r_max[stage] if is_warm else None
        return BandModel(*given, group=self.group, device=s.device, quadrature_r_max=fine_to)

    @property
    def pose_prior(self) -> PosePrior:
        """What is known of the poses beforehand."""
        s = self.settings
        return PosePrior(s.shift_sigma_A / s.pixel_size_A, s.shift_extent_A / s.pixel_size_A)

    def _start_stage(self, stage: int, band: BandModel, previous: StageMethod | None) -> StageMethod:
        support = band.support(self.diameter)
        sample = self.sample(band.disc)
        if previous is None:
            random = self.generator(self._of_start("start"))
            every = [initial_volume(band, sample, self.diameter, random) for _ in range(self.settings.classes)]
        else:
            every = [fourier_resize(volume, band.box) for volume in previous.volumes]
        volumes = torch.stack(every)
        volumes = self.team.from_first(lambda: volumes, volumes)
        if self.settings.method == "auto":
            if isinstance(previous, AutoStage):
                if previous.junk and not previous.junk.covers(band.disc):
                    previous.junk.cover(sample, band.disc)
                return AutoStage(band, support, volumes, previous, self.team, folds=self.folds)
            about = sample, band.disc, self.source.mask_power
            annealing, junk = Annealing.of(*about), Junk.like(*about)
            return AutoStage(band, support, volumes, None, self.team, annealing, junk, self.folds)
        spec = METHODS[self.settings.method]
        assert isinstance(self._sampler, FixedMinibatchSampler)
        generator = self.generator(f"curvature {stage}")
        curvature = self.team.number_from_first(lambda: largest_curvature(band, sample, generator))
        facts = Facts(curvature, self._sampler.n_batches)
        start = Start(band, support, volumes[0], sample, self._objective(band), self.team)
        if previous is None:
            chosen = choose_rate(spec, start, facts)
            self._rate_factor = chosen.factor
            if chosen.image_gradients:
                self.say(
                    f"The base step was searched, at {chosen.image_gradients:,} image gradients, not counted below"
                )
        rate = base_rate(spec, start, facts) * self._rate_factor
        return GradientStage(
            band, support, volumes[0], spec=spec, rate=rate, facts=facts, objective=start.objective, team=self.team
        )

    def _blank_stage(self, stage: int, band: BandModel) -> StageMethod:
        """A method that is to go on from a checkpoint, which has its map, its rate and whatever else it remembers."""
        support = band.support(self.diameter)
        volumes = torch.zeros(self.settings.classes, *support.shape, device=band.device)
        if self.settings.method == "auto":
            junk = Junk(self.source.mask_power)
            return AutoStage(band, support, volumes, None, self.team, junk=junk, folds=self.folds)
        assert isinstance(self._sampler, FixedMinibatchSampler)
        facts, objective = Facts(1.0, self._sampler.n_batches), self._objective(band)
        spec = METHODS[self.settings.method]
        return GradientStage(
            band, support, volumes[0], spec=spec, rate=1.0, facts=facts, objective=objective, team=self.team
        )

    def sample(self, disc: FourierDisc) -> WhitenedImages:
        """Some of the training particles, always the same."""
        return self.source.images(self._sample, disc)

    def _objective(self, band: BandModel) -> Objective:
        prior = ExponentialCubicPrior().on_grid(band.box / self.settings.box)
        return Objective(prior, n_images=len(self.training))

    def run_stage(self, stage: int, band: BandModel, method: StageMethod) -> float | None:
        """Minibatches until the stage is done; returns the last held-out gain."""
        limits = self.settings.stages_r_max, self.settings.refined_r_max
        control = StageControl(plan_stage(stage, *limits, self.settings.method))
        held_out = self.source.images(self.team.share(self.held_out), band.disc)
        gain: float | None = None
        iteration = 0

        def load(batch: tuple[Tensor, int]) -> WhitenedImages:
            return self.source.images(self.team.share(batch[0]), band.disc)

        def state() -> State:
            return {"iteration": iteration, "gain": gain, "control": control.state(), "method": method.state()}

        with (
            self.checkpoints.part(f"stage {stage}", state) as kept,
            contextlib.closing(prefetched(load, self._batches())) as batches,
        ):
            if kept is not None:
                iteration, gain = kept["iteration"], kept["gain"]
                control.restore(kept["control"])
                method.restore(kept["method"])
            while not self.out_of_epochs():
                method.set_step(control.step_size)
                if self.settings.rotate_grid and iteration:
                    method.band = self.make_band(stage, iteration, is_warm=method.is_warm)
                elif method.is_warm != method.band.is_coarse:
                    method.band = self.make_band(stage, is_warm=True) if method.is_warm else band
                (indices, number), images = next(batches)
                self._drawn.pop(0)
                step_size = method.step_size
                step = method.step(images, number, len(indices))
                iteration += 1
                self.iteration += 1
                self.image_gradients += step.image_gradients
                check = control.is_check(iteration) or self.out_of_epochs()
                judged = self.judge(band, method.volumes, method.log_shares, held_out) if check else None
                done = min(1.0, iteration / control.plan.expected_iterations)
                self._show(method.band, method, held_out)
                self.report(
                    stage, band.r_max, done, batch_nll=step.nll, judged=judged, ess=step.ess, step_size=step_size
                )
                if judged is not None:
                    gain = judged.gain
                    if method.judged(gain):
                        break
                    if control.is_check(iteration) and control.decide(iteration, gain) is Decision.STAGE_DONE:
                        break
                self.checkpoints.offer()
        best = method.go_back()
        return gain if best is None else best

    def _show(self, band: BandModel, method: StageMethod, held_out: WhitenedImages) -> None:
        """Offer what stands to those who watch."""

        def matches() -> Matches:
            # The first held-out particles are always of the first process, which is the one that writes.
            few = slice(0, min(N_MATCHES, len(held_out)))
            particles = self.held_out[few], held_out[few], self.settings.pixel_size_A
            return matches_on_quadrature(band, method.shown(), method.log_shares, *particles)

        self.live.offer(band.r_max, method.shown, method.log_shares, self.image_gradients, matches)

    def judge(self, band: BandModel, volumes: Tensor, log_shares: Tensor, held_out: WhitenedImages) -> HeldOut:
        """How well maps explain the held-out particles, of which `held_out` is this process's share."""
        log_evidence = band.mixture(volumes, held_out, log_shares).log_evidence
        each = torch.stack([-log_evidence, -held_out.log_constant], dim=1)
        nll, empty = self.team.gather(each, len(self.held_out)).unbind(1)
        return HeldOut.of(nll, empty, self.team)

    def _may_refine(self, stage: int, gain: float) -> bool:
        """Whether the images know their poses well enough for refinement, by sums as fine as it searches with."""
        s = self.settings
        is_fine = stage >= last_stage_of_starts(s.stages_r_max, s.refined_r_max)
        return bool(s.refined_r_max) and is_fine and gain >= LEAST_GAIN_TO_REFINE

    def out_of_epochs(self) -> bool:
        """Whether the image gradients that the user allows a start and what follows from it are spent."""
        limit = self.settings.epochs
        return limit is not None and self.image_gradients - self._spent_elsewhere >= limit * len(self.training)

    def forecast(self) -> float:
        """Measure the machine for a second; the seconds that the run is expected to take, by which progress goes."""
        band = self.make_band(0)
        images = self.source.images(self._sample[:IMAGES_TO_TIME], band.disc)
        seconds = expected_seconds(self.settings, measure(self.settings, band, images, self.generator("forecast")))
        self.share_done.expect(seconds)
        n_exact = len(self.settings.stages_r_max)
        return expected_starts(self.settings) * sum(seconds[:n_exact]) + sum(seconds[n_exact:])

    def _batches(self) -> Iterator[tuple[Tensor, int]]:
        """Minibatches and their numbers, first those that an earlier stage drew and did not use."""
        yield from list(self._drawn)
        while True:
            self._drawn.append((self._sampler.next(), self._sampler.number))
            yield self._drawn[-1]

    def report(
        self,
        stage: int,
        r_max: float,
        done: float,
        *,
        batch_nll: float | None = None,
        judged: HeldOut | None = None,
        ess: float | None = None,
        step_size: float | None = None,
        sum_error: SumError | None = None,
        message: str | None = None,
    ) -> None:
        """Tell how things stand; `done` is the share of the stage that is, the final pass being the last stage."""
        s = self.settings
        self._report(
            Event(
                iteration=self.iteration,
                start=self.start,
                stage=stage,
                r_max=r_max,
                resolution_A=s.box * s.pixel_size_A / r_max,
                batch_nll=batch_nll,
                nll=None if judged is None else judged.nll,
                nll_standard_error=None if judged is None else judged.standard_error,
                nll_gain=None if judged is None else judged.gain,
                nll_gain_standard_error=None if judged is None else judged.gain_standard_error,
                ess=ess,
                step=step_size,
                seconds=time.monotonic() - self.started,
                image_gradients=self.image_gradients,
                fraction_done=self.share_done.at(self.start, stage, done),
                sum_error=None if sum_error is None else sum_error.mean,
                sum_error_standard_error=None if sum_error is None else sum_error.standard_error,
                message=message,
            )
        )

    @property
    def final_stage(self) -> int:
        """The number of the final pass, as a stage."""
        return len(self.settings.stages_r_max) + len(self.settings.refined_r_max)

    def say(self, message: str, stage: int = 0, r_max: float | None = None) -> None:
        """Report something worth a line of its own; the final pass has no band limit of its own to say it at."""
        limits = self.settings.stages_r_max + self.settings.refined_r_max
        self.report(stage, limits[stage] if r_max is None else r_max, 0.0, message=message)
