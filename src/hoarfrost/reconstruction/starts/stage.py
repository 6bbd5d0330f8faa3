"""A stage of a start: minibatches at one band limit, until held-out particles say that it is done."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import final

from torch import Tensor

from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadratic import Mixture
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.schedule import Decision, StageControl, plan_stage
from hoarfrost.reconstruction.starts.gradient import GradientMethod
from hoarfrost.reconstruction.starts.method import Ground, Minibatch
from hoarfrost.reconstruction.starts.online_em import OnlineMethod
from hoarfrost.reconstruction.starts.reader import Reader, Sampler
from hoarfrost.reconstruction.state.phase import News, Tally
from hoarfrost.reconstruction.watch.live import Shown
from hoarfrost.reconstruction.watch.matches import N_MATCHES, Matches, matches_on_quadrature

Method = OnlineMethod | GradientMethod


@final
@dataclass(frozen=True)
class Stage:
    """Stage `number` of random start `start`, its `method` and where its `sampler` and its plan (`control`) are.

    `gain` is the latest held-out one, in nats an image; it ends as that of the maps that the method went back to.
    """

    number: int
    start: int
    symmetry: str
    method: Method
    sampler: Sampler
    control: StageControl
    iteration: int = 0
    gain: float | None = None
    is_over: bool = False
    news: tuple[News, ...] = ()

    @classmethod
    def begin(cls, env: Env, number: int, start: int, symmetry: str, method: Method, sampler: Sampler) -> Stage:
        """From a method at that band limit."""
        s = env.settings
        plan = plan_stage(number, s.stages_r_max, s.refined_r_max, s.method)
        return cls(number, start, symmetry, method, sampler, StageControl(plan))

    def step(self, env: Env, tally: Tally) -> Stage:
        """One minibatch, and a look at the held-out particles where it is time for one."""
        if env.is_out_of_epochs(tally.since_start):
            return dataclasses.replace(self, news=())._ended(env)
        fine = self._fine_band(env)
        ground = self._ground(env)
        indices, images, sampler = self._reader(env, fine).next(self.sampler)
        method = self.method.sized(self.control.step_size)
        step_size = method.step_size
        method, report = method.step(ground, Minibatch(images, sampler.number, len(indices)))
        iteration, control, gain = self.iteration + 1, self.control, self.gain
        spent = tally.since_start + report.image_gradients
        is_over, judged = False, None
        if control.is_check(iteration) or env.is_out_of_epochs(spent):
            method = method.solved(ground)
            judged = env.judge(fine, method.volumes, method.log_shares)
            gain = judged.gain
            method, is_over = method.judged(gain)
            if not is_over and control.is_check(iteration):
                decision, control = control.decide(iteration, gain)
                is_over = decision is Decision.STAGE_DONE
        news = News(
            self.number,
            fine.r_max,
            min(1.0, iteration / control.plan.expected_iterations),
            batch_nll=report.nll,
            judged=judged,
            ess=report.ess,
            step_size=step_size,
            images=report.image_gradients,
            is_iteration=True,
        )
        after = dataclasses.replace(
            self,
            method=method,
            sampler=sampler,
            control=control,
            iteration=iteration,
            gain=gain,
            news=(news,),
        )
        return after._ended(env) if is_over else after

    def _ended(self, env: Env) -> Stage:
        method, best = self.method.at_best()
        method = method.solved(self._ground(env))
        return dataclasses.replace(self, method=method, gain=self.gain if best is None else best, is_over=True)

    @property
    def maps(self) -> Mixture:
        """The maps of a stage that is over."""
        return Mixture(self.method.volumes, self.method.log_shares)

    def shown(self, env: Env) -> Shown:
        """The current maps, and some held-out particles with their best poses."""
        ground = self._ground(env)

        def maps() -> Tensor:
            return self.method.shown(ground)

        def matches() -> Matches:
            # The first held-out particles are always of the first process, which is the one that writes.
            images = env.held_out_images(self._fine_band(env).disc)
            few = slice(0, min(N_MATCHES, len(images)))
            particles = env.held_out[few], images[few], env.settings.pixel_size_A
            return matches_on_quadrature(ground.band, maps(), self.method.log_shares, *particles)

        return Shown(ground.band.r_max, maps, self.method.log_shares, matches)

    def _fine_band(self, env: Env) -> BandModel:
        return env.band(self.number, self.symmetry, start=self.start)

    def _ground(self, env: Env) -> Ground:
        """The model for the next minibatch, which may be coarser or turned anew."""
        turned = self.iteration if env.settings.rotate_grid else 0
        is_warm = self.method.is_warm
        band = env.band(self.number, self.symmetry, start=self.start, draw=turned, is_warm=is_warm)
        return Ground(band, env.support(band.box), env.team)

    def _reader(self, env: Env, band: BandModel) -> Reader:
        def load(indices: Tensor) -> WhitenedImages:
            return env.source.images(env.team.share(indices), band.disc)

        return env.memo.get("reader", (band.disc.r_max,), lambda: Reader(load))
