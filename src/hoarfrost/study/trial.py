"""One method from one start: the loop over minibatches, with the held-out NLL and the maps at marked gradients."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from textwrap import shorten

import torch
from torch import Tensor

from hoarfrost.baselines import batch_em, projection_matching
from hoarfrost.maths.seeds import named_generator
from hoarfrost.optim.registry import Facts, MethodSpec
from hoarfrost.optim.schedules import settling
from hoarfrost.particles.sampling import FixedMinibatchSampler
from hoarfrost.reconstruction.starts.curvature import largest_curvature
from hoarfrost.reconstruction.starts.gradient import descend
from hoarfrost.reconstruction.starts.method import Ground, Minibatch
from hoarfrost.reconstruction.starts.online_em import OnlineMethod
from hoarfrost.reconstruction.starts.step_size import ChosenRate, Start, choose_rate
from hoarfrost.study.data import StudyData

CHECKPOINT_GROWTH = 1.12
AUTO_MINIBATCH = 100
# Minibatches for which `auto` takes its largest steps: a sixth of the run, within these bounds.
SHORTEST_HOLD = 15
LONGEST_HOLD = 120
LONGEST_REASON = 200  # characters, of an error's message
BASELINES = {"projection-matching": "Projection matching", "batch-em": "Batch EM"}


@dataclass(frozen=True)
class Checkpoint:
    """The held-out NLL and its standard error after `image_gradients`; `seconds` of wall time and of all cores.

    Evaluations and the choice of a rate do not count towards the time.
    """

    image_gradients: int
    seconds: float
    cpu_seconds: float
    nll: float
    nll_standard_error: float


@dataclass(frozen=True)
class Trial:
    """What came of one method from one start. `volumes` holds maps (box, box, box) by image gradients.

    `rate` is how the base step was chosen, None for methods without one. `failure` says when and why it ended early,
    None where it did not.
    """

    method: str
    title: str
    seed: int
    checkpoints: list[Checkpoint]
    volumes: dict[int, Tensor]
    rate: ChosenRate | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Plan:
    """How a trial goes: until `budget` image gradients are spent, in whole iterations.

    Maps are kept at `map_marks` image gradients, at the end, and whenever these have grown by `map_growth`. The base
    step is chosen, unless `rate` was before, and multiplied by `factor`.
    """

    budget: int
    map_marks: tuple[int, ...] = ()
    map_growth: float = math.inf
    rate: ChosenRate | None = None
    factor: float = 1.0


Steps = Iterator[tuple[Tensor, int]]
"""The map after each step, and the image gradients that the step took."""


def run_trial(
    data: StudyData, method: MethodSpec | str, seed: int, plan: Plan, say: Callable[[int], None] = lambda _: None
) -> Trial:
    """Run a method, or one of `auto` and the baselines by name, from the start of `seed`.

    It has failed when the map or its likelihood is no longer finite, or the method, which may be the user's own, raises
    anything. `say` is told the image gradients done so far.
    """
    start = data.start(seed)
    watch = _Watch(data, plan)
    watch.look(start.volume, 0)
    rate = None
    done = 0
    try:
        if isinstance(method, MethodSpec):
            rate, steps = _gradient_method(data, method, start, seed, plan)
        else:
            steps = _auto(data, start, seed, plan.budget) if method == "auto" else _baseline(data, start, method)
        watch.go()
        for volume, gradients in steps:
            done += gradients
            if watch.is_due(done) or done >= plan.budget or not bool(volume.isfinite().all()):
                watch.stop()
                watch.look(volume, done)
                say(done)
                watch.go()
            if done >= plan.budget or watch.failure is not None:
                break
    except Exception as error:
        watch.fail(done, f"{type(error).__name__}: {error}")
    name, title = (method, BASELINES.get(method, method)) if isinstance(method, str) else (method.name, method.title)
    return Trial(name, title, seed, watch.checkpoints, watch.volumes, rate, watch.failure)


def _minibatches(data: StudyData, size: int, seed: int) -> FixedMinibatchSampler:
    return FixedMinibatchSampler.of(torch.arange(len(data.images)), size, named_generator(seed, "minibatches"))


def _gradient_method(
    data: StudyData, method: MethodSpec, start: Start, seed: int, plan: Plan
) -> tuple[ChosenRate, Steps]:
    sampler = _minibatches(data, method.batch_size, seed)
    curvature = largest_curvature(start.band, start.sample, named_generator(seed, "curvature"))
    facts = Facts(curvature, sampler.n_batches)
    rate = choose_rate(method, start, facts) if plan.rate is None else plan.rate
    parameter = torch.nn.Parameter(start.volume * start.support)
    optimiser = method.build([parameter], rate.rate * plan.factor, facts)
    return rate, _gradient_steps(data, start, sampler, parameter, optimiser)


def _auto(data: StudyData, start: Start, seed: int, budget: int) -> Steps:
    """Large steps while the start finds its shape, the first half of them of positive maps; then ever smaller ones."""
    ground = Ground(start.band, start.support)
    hold = min(max(SHORTEST_HOLD, budget // AUTO_MINIBATCH // 6), LONGEST_HOLD)
    method = dataclasses.replace(OnlineMethod.begin(ground, start.volume), warm_up=hold)
    sampler = _minibatches(data, AUTO_MINIBATCH, seed)
    for iteration in count():
        if iteration == hold // 2:
            method = method.allowing_negative()
        indices, sampler = sampler.next()
        sized = method.sized(settling(iteration, hold=hold))
        method, report = sized.step(ground, Minibatch.whole(data.images[indices]))
        method = method.solved(ground)
        yield method.volumes[0], report.image_gradients


def _gradient_steps(
    data: StudyData,
    start: Start,
    sampler: FixedMinibatchSampler,
    parameter: torch.nn.Parameter,
    optimiser: torch.optim.Optimizer,
) -> Steps:
    ground = Ground(start.band, start.support)
    while True:
        indices, sampler = sampler.next()
        minibatch = Minibatch.whole(data.images[indices], sampler.number)
        report = descend(optimiser, parameter, ground, minibatch, data.objective)
        yield parameter.detach(), report.image_gradients


def _baseline(data: StudyData, start: Start, name: str) -> Steps:
    state = batch_em.start(start.band, start.volume)
    volume = start.volume
    while True:
        if name == "batch-em":
            state = batch_em.iterate(start.band, data.images, state, start.support)
            volume = state.volume
        else:
            volume = projection_matching.iterate(start.band, data.images, volume, start.support)
        yield volume, len(data.images)


class _Watch:
    """Looks at the map at growing intervals; its clock stands still meanwhile."""

    def __init__(self, data: StudyData, plan: Plan) -> None:
        self.checkpoints: list[Checkpoint] = []
        self.volumes: dict[int, Tensor] = {}
        self.failure: str | None = None
        self._data = data
        self._map_growth = plan.map_growth
        self._marks = sorted({*(mark for mark in plan.map_marks if mark < plan.budget), plan.budget})
        self._next_look = 0.0
        self._next_map = 0.0
        self._seconds = 0.0
        self._cpu_seconds = 0.0
        self._since = (0.0, 0.0)

    def go(self) -> None:
        self._since = time.monotonic(), time.process_time()

    def stop(self) -> None:
        self._seconds += time.monotonic() - self._since[0]
        self._cpu_seconds += time.process_time() - self._since[1]

    def is_due(self, done: int) -> bool:
        return done >= self._next_look or self._is_marked(done)

    def look(self, volume: Tensor, done: int) -> None:
        if not bool(volume.isfinite().all()):
            self.fail(done, "the map was no longer finite")
            return
        nll, error = self._data.nll(volume)
        if not math.isfinite(nll):
            self.fail(done, "the likelihood was no longer finite")
            return
        self.checkpoints.append(Checkpoint(done, self._seconds, self._cpu_seconds, nll, error))
        if self._is_marked(done) or done >= self._next_map:
            self.volumes[done] = volume.detach().clone()
            self._next_map = max(done, 1) * self._map_growth
        self._marks = [mark for mark in self._marks if mark > done]
        self._next_look = math.ceil(max(done, 1) * CHECKPOINT_GROWTH)

    def fail(self, done: int, reason: str) -> None:
        self.failure = f"failed after {done:,} image gradients: {shorten(reason, LONGEST_REASON)}"

    def _is_marked(self, done: int) -> bool:
        return bool(self._marks and done >= self._marks[0])
