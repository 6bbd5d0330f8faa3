"""Phases of a run as values, what a step has to tell, and the one loop that takes a run to its end.

A phase is a frozen dataclass that holds all there is to know at a moment: tensors, numbers, states of generators. Its
fields are the checkpoint. `step` returns the phase one step on: after a minibatch, a batch of a pass, or a decision.
A step may write into the tensors of the phase that it was called on, which is not used again.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, TypeVar

from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.estimate.sum_error import SumError

EnvT = TypeVar("EnvT")
EnvT_contra = TypeVar("EnvT_contra", contravariant=True)
RunT = TypeVar("RunT", bound="Run[Any]")
RunT_contra = TypeVar("RunT_contra", contravariant=True)


@dataclass(frozen=True)
class LeftOut:
    """Work that will not be done, or follows once more, from number `first` on: see `watch.progress`."""

    what: Literal["stages", "starts", "up to the last", "again"]
    first: int


@dataclass(frozen=True)
class News:
    """What a step has to tell. `done` is the part of stage number `stage` that is done; `r_max` is in Fourier pixels.

    `batch_nll` and `ess` are of a minibatch, `judged` of the held-out particles, `sum_error` of a spot check, all in
    nats an image. `images` counts the gradients of single images that the step took, and `is_iteration` says whether it
    was a minibatch. With `begins_start` that random start begins. `doubts` are told by a run that has ended: reasons
    not to trust its maps.
    """

    stage: int
    r_max: float
    done: float = 0.0
    batch_nll: float | None = None
    judged: HeldOut | None = None
    ess: float | None = None
    step_size: float | None = None
    sum_error: SumError | None = None
    message: str | None = None
    doubts: tuple[str, ...] = ()
    images: int = 0
    is_iteration: bool = False
    begins_start: int | None = None
    left_out: LeftOut | None = None
    is_told: bool = True


@dataclass(frozen=True)
class Tally:
    """What a run has done so far; `since_start` counts image gradients from the beginning of the latest start on."""

    start: int = 0
    iteration: int = 0
    image_gradients: int = 0
    since_start: int = 0

    def after(self, news: News) -> "Tally":
        """The tally after a step that told this."""
        tally = self
        if news.begins_start is not None:
            tally = dataclasses.replace(tally, start=news.begins_start, since_start=0)
        return dataclasses.replace(
            tally,
            iteration=tally.iteration + news.is_iteration,
            image_gradients=tally.image_gradients + news.images,
            since_start=tally.since_start + news.images,
        )


class Run(Protocol[EnvT_contra]):
    """A whole run, whose phases follow each other."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""

    def step(self, env: EnvT_contra) -> Self:
        """The run one step on."""


class Observer(Protocol[RunT_contra, EnvT_contra]):
    """Whoever is to know how a run goes."""

    def after(self, run: RunT_contra, env: EnvT_contra) -> None:
        """Called after each step: events, live maps, checkpoints and the wish to stop, here and nowhere else."""


def drive(run: RunT, env: EnvT, observer: Observer[RunT, EnvT]) -> RunT:
    """Take a run to its end, step by step."""
    while not run.is_over:
        run = run.step(env)
        observer.after(run, env)
    return run
