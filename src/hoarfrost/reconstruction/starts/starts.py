"""The first phase: random starts, each through stages of growing band limit, one after the other until two agree."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.map_prior import ExponentialCubicPrior
from hoarfrost.optim.registry import METHODS, Facts
from hoarfrost.particles.sampling import FixedMinibatchSampler, MinibatchSampler
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.diameter import LEAST_OF_DIAMETER, diameter_of_map
from hoarfrost.reconstruction.estimate.folds import FOLDS
from hoarfrost.reconstruction.estimate.junk import Junk
from hoarfrost.reconstruction.schedule import LEAST_GAIN_TO_REFINE, last_stage_of_starts
from hoarfrost.reconstruction.starts.agreement import StartMaps, StartsResult, compare
from hoarfrost.reconstruction.starts.annealing import Annealing
from hoarfrost.reconstruction.starts.curvature import largest_curvature
from hoarfrost.reconstruction.starts.gradient import Descent, GradientMethod, Objective
from hoarfrost.reconstruction.starts.initial_map import initial_volume
from hoarfrost.reconstruction.starts.method import Ground
from hoarfrost.reconstruction.starts.online_em import OnlineMethod
from hoarfrost.reconstruction.starts.reader import Sampler
from hoarfrost.reconstruction.starts.stage import Method, Stage
from hoarfrost.reconstruction.starts.step_size import Start, base_rate, choose_rate
from hoarfrost.reconstruction.state.phase import LeftOut, News, Tally
from hoarfrost.reconstruction.watch.live import Shown


@final
@dataclass(frozen=True)
class Starts:
    """Random starts: those that are `found`, and the one that is at a `stage`, whose `best` maps are those so far.

    `so_far` are the maps to go on with, and `comparison` tells how starts compare, once there are several.
    `rate_factor` is what the base step of a gradient method was multiplied by. `diameter_A` is the particle's where the
    map of the first stage has told it.
    """

    found: tuple[StartMaps, ...] = ()
    stage: Stage | None = None
    best: StartMaps | None = None
    so_far: StartMaps | None = None
    comparison: StartsResult = StartsResult()
    rate_factor: float = 1.0
    diameter_A: float | None = None
    is_over: bool = False
    news: tuple[News, ...] = ()

    @property
    def start(self) -> int:
        """The number of the start that is under way, or comes next."""
        return len(self.found)

    @property
    def result(self) -> StartMaps | None:
        """The maps to go on with, once the starts are over."""
        return self.so_far if self.is_over else None

    def step(self, env: Env, tally: Tally) -> Starts:
        """A minibatch of a stage; or the beginning of a start; or what follows from a stage or a start that is over."""
        if self.stage is None:
            return self._begun(env) if self.best is None else self._compared(env)
        if not self.stage.is_over:
            stage = self.stage.step(env, tally)
            return dataclasses.replace(self, stage=stage, news=stage.news)
        if self.diameter_A is None and env.settings.sources["diameter_A"] == "data":
            return self._measured(env, self.stage)
        return self._after_stage(env, self.stage, tally)

    def _measured(self, env: Env, stage: Stage) -> Starts:
        """With the particle's diameter, from the map of the first stage: less than that before, but not by much."""
        volume, before_A = stage.maps.volumes.mean(dim=0), env.settings.diameter_A
        share = env.team.once_number(lambda: diameter_of_map(volume))
        diameter_A = min(max(share * env.length_A, LEAST_OF_DIAMETER * before_A), before_A)
        message = f"The first map is {diameter_A:.0f} Å wide: the mask is as wide from now on"
        return dataclasses.replace(
            self, diameter_A=diameter_A, news=(News(stage.number, env.r_max_of(stage.number), 1.0, message=message),)
        )

    def _begun(self, env: Env) -> Starts:
        generator = env.generator("minibatches", self.start)
        size = env.settings.batch_size
        sampler: Sampler
        if env.settings.method == "auto":
            sampler = MinibatchSampler.of(env.training_of_start(self.start), size, generator, FOLDS)
        else:
            sampler = FixedMinibatchSampler.of(env.training, size, generator)
        begins = News(0, env.r_max_of(0), begins_start=self.start, is_told=False)
        return dataclasses.replace(self, news=(begins,))._at_stage(env, 0, None, sampler)

    def _at_stage(self, env: Env, number: int, before: Method | None, sampler: Sampler) -> Starts:
        """At the beginning of a stage, from a random map or from the method at the stage before."""
        band = env.band(number, env.first_symmetry, start=self.start)
        ground = Ground(band, env.support(band.box), env.team)
        random = env.generator("start", self.start)
        sample = env.sample(band.disc)
        if before is None:
            every = [initial_volume(band, sample, env.diameter, random) for _ in range(env.settings.classes)]
            volumes = env.team.same(torch.stack(every))
        else:
            volumes = env.team.same(_resized(before.volumes, band))
        after = self
        if env.settings.method == "auto":
            method = _online(env, ground, volumes, before, sampler)
        else:
            assert isinstance(sampler, FixedMinibatchSampler)
            after, method = self._descending(env, ground, volumes[0], number, sampler.n_batches)
        stage = Stage.begin(env, number, self.start, env.first_symmetry, method, sampler)
        return dataclasses.replace(after, stage=stage)

    def _descending(
        self, env: Env, ground: Ground, volume: Tensor, number: int, n_batches: int
    ) -> tuple[Starts, Method]:
        """A gradient method, whose base step is searched at the first stage."""
        spec, sample = METHODS[env.settings.method], env.sample(ground.band.disc)
        generator = env.generator(f"curvature {number}")
        curvature = env.team.once_number(lambda: largest_curvature(ground.band, sample, generator))
        facts = Facts(curvature, n_batches)
        prior = ExponentialCubicPrior().on_grid(ground.band.box / env.settings.box)
        objective = Objective(prior, len(env.training))
        start = Start(ground.band, ground.support, volume, sample, objective, env.team)
        after = self
        if number == 0:
            chosen = choose_rate(spec, start, facts)
            after = dataclasses.replace(self, rate_factor=chosen.factor)
            if chosen.image_gradients:
                message = (
                    f"The base step was searched, at {chosen.image_gradients:,} image gradients, not counted below"
                )
                after = dataclasses.replace(after, news=(*self.news, News(0, env.r_max_of(0), message=message)))
        rate = base_rate(spec, start, facts) * after.rate_factor
        return after, GradientMethod.begin(ground, volume, Descent(spec.name, rate, facts, objective))

    def _after_stage(self, env: Env, stage: Stage, tally: Tally) -> Starts:
        """What follows from a stage that is over: the next stage, or the end of the start."""
        best, gain = self.best, stage.gain
        if best is None and self.start == 0 and self.diameter_A is not None:
            # In a narrower mask the images hold less, for any map to explain.
            maps = stage.maps
            gain = env.judge(env.band(0, env.first_symmetry), maps.volumes, maps.log_shares).gain
        is_out_of_epochs = env.is_out_of_epochs(tally.since_start)
        ended = dataclasses.replace(self, stage=None, news=())
        if best is not None and (gain is None or gain < best.gain):
            if is_out_of_epochs:
                return dataclasses.replace(ended, best=dataclasses.replace(best, converged=False))
            limit_A = env.length_A / env.r_max_of(best.stage)
            message = f"Detail beyond {limit_A:.1f} Å does not explain held-out particles any better"
            return dataclasses.replace(ended, news=(News(stage.number, env.r_max_of(stage.number), message=message),))
        gain = float("-inf") if gain is None else gain
        best = StartMaps(stage.maps, stage.number, gain, not is_out_of_epochs)
        ended = dataclasses.replace(ended, best=best)
        if is_out_of_epochs or stage.number + 1 == len(env.settings.stages_r_max):
            return ended
        if self._may_refine(env, stage.number, gain):
            skipped = LeftOut("stages", stage.number + 1)
            news = News(stage.number, env.r_max_of(stage.number), left_out=skipped, is_told=False)
            return dataclasses.replace(ended, news=(news,))
        return ended._at_stage(env, stage.number + 1, stage.method, stage.sampler)

    def _may_refine(self, env: Env, stage: int, gain: float) -> bool:
        """Whether the images know their poses well enough for refinement, by sums as fine as it searches with."""
        s = env.settings
        is_fine = stage >= last_stage_of_starts(s.stages_r_max, s.refined_r_max)
        return bool(s.refined_r_max) and is_fine and gain >= LEAST_GAIN_TO_REFINE

    def _compared(self, env: Env) -> Starts:
        """With one more start found, compared with those before: over, or to go on with the next."""
        assert self.best is not None
        found = (*self.found, self.best)
        news: tuple[News, ...] = ()
        so_far, comparison = self.best, StartsResult()
        if len(found) > 1:
            so_far, comparison = compare(env, found, self.start)
            message = f"Random starts so far: {comparison.summary()}; {comparison.poses_summary()}"
            news = (News(0, env.r_max_of(0), message=message),)
        is_over = len(found) == env.settings.starts
        of_both = so_far.halves is not None or env.half_of_start(self.start) is None
        if env.settings.until_two_agree and comparison.n_agreeing > 1 and of_both:
            is_over = True
            news = (*news, News(0, env.r_max_of(0), left_out=LeftOut("starts", len(found)), is_told=False))
        return dataclasses.replace(
            self, found=found, best=None, so_far=so_far, comparison=comparison, is_over=is_over, news=news
        )

    def shown(self, env: Env) -> Shown | None:
        """The current maps of a stage."""
        return None if self.stage is None else self.stage.shown(env)


def _online(env: Env, ground: Ground, volumes: Tensor, before: Method | None, sampler: Sampler) -> Method:
    disc, sample, mask_power = ground.band.disc, env.sample(ground.band.disc), env.source.mask_power
    if isinstance(before, OnlineMethod):
        junk = before.junk
        if junk is not None:
            junk = dataclasses.replace(junk, mask_power=mask_power)
            before = dataclasses.replace(before, junk=junk if junk.covers(disc) else junk.covering(sample, disc))
        return before.widened(ground, volumes)
    annealing, junk = Annealing.of(sample, disc, mask_power), Junk(mask_power).covering(sample, disc)
    return OnlineMethod.begin(ground, volumes, sampler.folds, annealing, junk)


def _resized(volumes: Tensor, band: BandModel) -> Tensor:
    return torch.stack([fourier_resize(volume, band.box) for volume in volumes])
