"""Where a run can stop, and go on as if it never had: its parts, each with a state of its own.

A run is made of parts within parts: starts, the stages of each, the sweeps of refinement, the last pass. A part that
opens says how to find out its state, and is handed what a checkpoint kept of it where the run goes on from one. Work
that is over is kept with its result, and not done again. After each minibatch, and each batch of a sweep, the run
offers a checkpoint: one is written if the last is old enough, or if the run is asked to stop.

States are tensors, numbers, texts and None, in dicts and lists. Random generators and running sums are among them, so
that a run that goes on does exactly what it would have done; what follows from settings and data alone is not.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self, TypeVar, final

import torch

from hoarfrost.errors import StoppedError, UsageError
from hoarfrost.parallel.team import Team

State = dict[str, Any]
"""Tensors, numbers, texts and None, in dicts and lists of these."""

INTERVAL_S = 60.0
# A checkpoint that takes long is written less often: never more than one part in so many of a run's time.
LEAST_RATIO = 20.0


class Kept(Protocol):
    """A result that checkpoints can hold."""

    def state(self) -> State:
        """All there is to know of it."""

    @classmethod
    def restored(cls, state: State) -> Self:
        """The result whose state that was."""


class KeptWhole:
    """A result whose fields are all that there is to know of it: base of dataclasses of tensors and numbers."""

    def state(self) -> State:
        """All there is to know of it."""
        return dict(vars(self))

    @classmethod
    def restored(cls, state: State) -> Self:
        """The one whose state that was."""
        return cls(**state)


Result = TypeVar("Result", bound=Kept)


def check_interval(every_s: float) -> None:
    """Raise UsageError for a time between checkpoints that makes no sense."""
    if not (every_s >= 0 and math.isfinite(every_s)):
        raise UsageError(f"--checkpoint-every must be zero or positive, in seconds, found {every_s:g}")


@final
class Checkpoints:
    """The open parts of a run, and when to write them down.

    `write` writes the state of all parts, by their paths, and raises UsageError where it cannot; without it none are
    written. `kept` are the states to go on from. `stop` tells whether the run is asked to stop, and `how_to_go_on` is
    the command that the user is then told; `say` tells him anything else. All processes of `team` open the same parts,
    and offer together.
    """

    say: Callable[[str], None]

    def __init__(
        self,
        write: Callable[[State], None] | None = None,
        *,
        every_s: float = INTERVAL_S,
        stop: Callable[[], bool] | None = None,
        how_to_go_on: str = "",
        kept: State | None = None,
        team: Team | None = None,
    ) -> None:
        self._write, self._every_s, self._stop, self._how_to_go_on = write, every_s, stop, how_to_go_on
        self._team = team or Team()
        self._kept = dict(kept or {})
        self._parts: dict[str, Callable[[], State]] = {}
        self._path = ""
        self.say = lambda message: None
        self._due = time.monotonic() + (every_s if kept else 0.0)
        self._has_complained = False

    @property
    def is_on(self) -> bool:
        """Whether any are written, so that states need to be known."""
        return self._write is not None

    def begin(self, state: Callable[[], State], restore: Callable[[State], None]) -> bool:
        """Begin the run as a whole, or go on with it: whether a checkpoint had anything to `restore`.

        One that is written at the very beginning has not: it tells with what the run began.
        """
        if "" not in self._kept:
            self.offer()
        self._parts[""] = state
        kept = self._kept.pop("", None)
        if kept is not None:
            restore(kept)
        return kept is not None

    @contextlib.contextmanager
    def part(self, name: str, state: Callable[[], State]) -> Iterator[State | None]:
        """A part of the run, open during the block: yields the state to go on from, None where it begins."""
        with self._inside(name) as path:
            self._parts[path] = state
            yield self._kept.pop(path, None)

    def once(self, name: str, work: Callable[[], Result], kind: type[Result]) -> Result:
        """What `work` comes to, a `kind`; done before a checkpoint, it is not done again in a run that goes on.

        Remembered until the part that it is done in is over.
        """
        path = f"{self._path}/{name} is over"
        kept = self._kept.pop(path, None)
        if kept is None:
            with self._inside(name):
                result = work()
        else:
            result = kind.restored(kept)
        self._parts[path] = result.state
        return result

    def offer(self) -> None:
        """Write a checkpoint if it is time, and stop if that is asked for.

        A disk that does not take one is told once, and the run goes on. Raises StoppedError where the run is to stop.
        """
        if self._write is None:
            return
        due, stopping = self._asked()
        if not (due or stopping):
            return
        trouble = self.write()
        if stopping:
            lost = "" if trouble is None else f", and what was done since the last checkpoint is lost ({trouble})"
            raise StoppedError(f"Stopped{lost}. Go on with: {self._how_to_go_on}")
        if trouble is not None and not self._has_complained:
            self._has_complained = True
            self.say(
                f"No checkpoint could be written ({trouble}). The run goes on; until that is mended, it can be resumed "
                "only from an earlier one"
            )

    def write(self) -> str | None:
        """Write a checkpoint now; returns why the first process could not, if it could not."""
        assert self._write is not None
        assert not self._kept, f"the run took another way than the checkpoint: {', '.join(self._kept)}"
        state = {path: part() for path, part in self._parts.items()}
        started = time.monotonic()
        trouble: list[str] = []

        def written() -> float:
            try:
                self._write(state)  # type: ignore[misc]  # it is not None
            except UsageError as error:
                trouble.append(str(error))
            return float(len(trouble))

        # The others wait: a launcher ends all processes when one has stopped.
        failed = self._team.number_from_first(written)
        now = time.monotonic()
        self._due = now + (max(self._every_s, LEAST_RATIO * (now - started)) if self._every_s else 0.0)
        return (trouble or ["told by the first process"])[0] if failed else None

    def _asked(self) -> tuple[bool, bool]:
        """Whether a checkpoint is due by the clock of the first process, and whether any process is asked to stop."""
        due = self._team.is_first and time.monotonic() >= self._due
        stopping = self._stop is not None and self._stop()
        if self._team.size == 1:
            return due, stopping
        flags = torch.tensor([due, stopping], dtype=torch.float64)
        self._team.sum_(flags)
        return bool(flags[0] > 0), bool(flags[1] > 0)

    @contextlib.contextmanager
    def _inside(self, name: str) -> Iterator[str]:
        """The path of `name` within what is open; what was opened inside is forgotten at the end."""
        outer = self._path
        path = self._path = f"{outer}/{name}"
        try:
            yield path
        finally:
            for inner in [p for p in self._parts if p == path or p.startswith(f"{path}/")]:
                del self._parts[inner]
            self._path = outer
