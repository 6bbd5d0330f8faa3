"""One method from one start: the loop over minibatches, with the held-out NLL and the maps at marked gradients."""

from __future__ import annotations

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
from hoarfrost.reconstruction.starts.gradient import GradientStage
from hoarfrost.reconstruction.starts.online_em import AutoStage
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
        sampler = FixedMinibatchSampler(
            torch.arange(len(data.images)), method.batch_size, named_generator(seed, "minibatches")
        )
        curvature = largest_curvature(start.band, start.sample, named_generator(seed, "curvature"))
        facts = Facts(curvature, sampler.n_batches)
        trial.rate = choose_rate(method, start, facts) if rate is None else rate
        stage = GradientStage(
            start.band,
            start.support,
            start.volume,
            spec=method,
            rate=trial.rate.rate * factor,
            facts=facts,
            objective=data.objective,
        )
        steps = _gradient_steps(data, stage, sampler)
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
    stage = AutoStage(start.band, start.support, start.volume)
    hold = min(max(SHORTEST_HOLD, budget // AUTO_MINIBATCH // 6), LONGEST_HOLD)
    stage.optimiser.param_groups[0]["warm_up"] = hold
    sampler = FixedMinibatchSampler(
        torch.arange(len(data.images)), AUTO_MINIBATCH, named_generator(seed, "minibatches")
    )
    iteration = 0
    while True:
        stage.set_step(settling(iteration, hold=hold))
        if iteration == hold // 2:
            stage.allow_negative()
        report = stage.step(data.images[sampler.next()])
        iteration += 1
        yield stage.volume, report.image_gradients


def _gradient_steps(
    data: StudyData, stage: GradientStage, sampler: FixedMinibatchSampler
) -> Iterator[tuple[Tensor, int]]:
    while True:
        images = data.images[sampler.next()]
        report = stage.step(images, sampler.number)
        yield stage.volume, report.image_gradients


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
