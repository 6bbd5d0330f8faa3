"""One method from one start: the loop over minibatches, with the held-out NLL and the maps at marked gradients."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

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
# `auto` takes its largest steps for a sixth of the run, within these bounds. The upper one is what the first stage of a
# reconstruction lasts at least.
SHORTEST_HOLD, LONGEST_HOLD = 15, 120
BASELINES = {"projection-matching": "Projection matching", "batch-em": "Batch EM"}

Say = Callable[[int], None]
"""Told the image gradients done so far."""


@dataclass(frozen=True)
class Checkpoint:
    """After so many image gradients and seconds, of wall time and of all cores: held-out NLL and its standard error.

    Evaluations do not count towards the time; choosing a rate does not either, it is reported by itself.
    """

    image_gradients: int
    seconds: float
    cpu_seconds: float
    nll: float
    nll_standard_error: float


@dataclass
class Trial:
    """What came of one method from one start. `volumes` holds maps (box, box, box) by image gradients.

    `rate` is how the base step was chosen, None for methods without one. `failure` says why it ended early.
    """

    method: str
    title: str
    seed: int
    checkpoints: list[Checkpoint] = field(default_factory=list)
    volumes: dict[int, Tensor] = field(default_factory=dict)
    rate: ChosenRate | None = None
    failure: str | None = None


def run_trial(
    data: StudyData,
    method: MethodSpec | str,
    seed: int,
    *,
    budget: int,
    map_marks: tuple[int, ...],
    map_growth: float,
    factor: float = 1.0,
    rate: ChosenRate | None = None,
    say: Say = lambda _: None,
) -> Trial:
    """Run a method, or one of `auto` and the baselines by name, from the start of `seed`.

    Ends when `budget` image gradients are spent (a baseline's iteration is never cut) or the map is no longer finite.
    The base step is multiplied by `factor`; `rate` is one chosen before.
    """
    start = data.start(seed)
    if isinstance(method, str):
        trial = Trial(method, BASELINES.get(method, method), seed)
        steps = _auto(data, start, seed, budget) if method == "auto" else _baseline(data, start, method)
    else:
        trial = Trial(method.name, method.title, seed)
        sampler = _sampler(data, method.batch_size, seed)
        curvature = largest_curvature(start.band, start.sample, named_generator(seed, "curvature"))
        facts = Facts(curvature, sampler.n_batches)
        trial.rate = choose_rate(method, start, facts) if rate is None else rate
        parameter = torch.nn.Parameter(start.volume * start.support)
        optimiser = method.build([parameter], trial.rate.rate * factor, facts)
        steps = _gradient_steps(data, start, sampler, parameter, optimiser)
    watch = _Watch(data, trial, budget, map_marks, map_growth)
    watch.look(start.volume, 0)
    done = 0
    watch.go()
    for volume, gradients in steps:
        done += gradients
        if not bool(volume.isfinite().all()):
            trial.failure = f"the map was no longer finite after {done} image gradients"
            break
        if watch.is_due(done) or done >= budget:
            watch.stop()
            watch.look(volume, done)
            say(done)
            watch.go()
        if done >= budget or trial.failure is not None:
            break
    return trial


def _auto(data: StudyData, start: Start, seed: int, budget: int) -> Iterator[tuple[Tensor, int]]:
    """Large steps while the start finds its shape, the first half of them of positive maps; then ever smaller ones.

    With the bound kept, 50,000 images ended 0.6 nats an image above SGD, and a hair below it without.
    """
    ground = Ground(start.band, start.support)
    hold = min(max(SHORTEST_HOLD, budget // AUTO_MINIBATCH // 6), LONGEST_HOLD)
    method = dataclasses.replace(OnlineMethod.begin(ground, start.volume), warm_up=hold)
    sampler = _sampler(data, AUTO_MINIBATCH, seed)
    for iteration in itertools.count():
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
) -> Iterator[tuple[Tensor, int]]:
    ground = Ground(start.band, start.support)
    while True:
        indices, sampler = sampler.next()
        minibatch = Minibatch.whole(data.images[indices], sampler.number)
        report = descend(optimiser, parameter, ground, minibatch, data.objective)
        yield parameter.detach(), report.image_gradients


def _sampler(data: StudyData, batch_size: int, seed: int) -> FixedMinibatchSampler:
    return FixedMinibatchSampler.of(torch.arange(len(data.images)), batch_size, named_generator(seed, "minibatches"))


def _baseline(data: StudyData, start: Start, name: str) -> Iterator[tuple[Tensor, int]]:
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

    def __init__(
        self, data: StudyData, trial: Trial, budget: int, map_marks: tuple[int, ...], map_growth: float
    ) -> None:
        self._data, self._trial = data, trial
        self._marks = sorted({*(m for m in map_marks if m < budget), budget})
        self._map_growth = map_growth
        self._next_look = self._next_map = 0.0
        self._seconds = self._cpu_seconds = 0.0
        self._since = (0.0, 0.0)

    def go(self) -> None:
        self._since = time.monotonic(), time.process_time()

    def stop(self) -> None:
        self._seconds += time.monotonic() - self._since[0]
        self._cpu_seconds += time.process_time() - self._since[1]

    def is_due(self, done: int) -> bool:
        return done >= self._next_look or bool(self._marks and done >= self._marks[0])

    def look(self, volume: Tensor, done: int) -> None:
        nll, error = self._data.nll(volume)
        if not math.isfinite(nll):
            self._trial.failure = f"the likelihood was no longer finite after {done} image gradients"
            return
        self._trial.checkpoints.append(Checkpoint(done, self._seconds, self._cpu_seconds, nll, error))
        marked = bool(self._marks and done >= self._marks[0])
        if marked or done >= self._next_map:
            self._trial.volumes[done] = volume.detach().clone()
            self._next_map = max(done, 1) * self._map_growth
        self._marks = [mark for mark in self._marks if mark > done]
        self._next_look = math.ceil(max(done, 1) * CHECKPOINT_GROWTH)
