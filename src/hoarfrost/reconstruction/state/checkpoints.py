"""When a run is written down, and what happens where that cannot be done or the user wants it to stop."""

import time
from collections.abc import Callable
from typing import Any, final

import torch

from hoarfrost.errors import StoppedError, UsageError
from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.settings.options import CHECKPOINT_EVERY_S
from hoarfrost.reconstruction.state.tree import plain

# A checkpoint that takes long is written less often: never more than one part in so many of a run's time.
LEAST_RATIO = 20.0


@final
class Checkpoints:
    """Writes a run down every `every_s` seconds, and when it is to stop.

    `write` takes the run as a plain value (`state.tree`), and raises UsageError where it cannot; without it none are
    written. `stop` tells whether the run is asked to stop, and `how_to_go_on` is the command that the user is then
    told. All processes of `team` have the same run, and offer it together. The first is due at once, unless the run
    `goes_on` from one.
    """

    def __init__(
        self,
        write: Callable[[Any], None] | None = None,
        *,
        every_s: float = CHECKPOINT_EVERY_S,
        stop: Callable[[], bool] | None = None,
        how_to_go_on: str = "",
        goes_on: bool = False,
        team: Team | None = None,
    ) -> None:
        self._write, self._every_s, self._stop, self._how_to_go_on = write, every_s, stop, how_to_go_on
        self._team = team or Team()
        self._due = time.monotonic() + (every_s if goes_on else 0.0)
        self._has_complained = False

    def after(self, run: object) -> str | None:
        """Write the run if it is time, and stop if that is asked for; something to tell the user, if there is.

        A disk that does not take a checkpoint is told once, and the run goes on. Raises StoppedError where the run is
        to stop.
        """
        if self._write is None:
            return None
        due, stopping = self._asked()
        if not (due or stopping):
            return None
        trouble = self._written(self._write, run)
        if stopping:
            lost = "" if trouble is None else f", and what was done since the last checkpoint is lost ({trouble})"
            raise StoppedError(f"Stopped{lost}. Go on with: {self._how_to_go_on}")
        if trouble is None or self._has_complained:
            return None
        self._has_complained = True
        return (
            f"No checkpoint could be written ({trouble}). The run goes on; until that is mended, it can be resumed "
            "only from an earlier one"
        )

    def _written(self, write: Callable[[Any], None], run: object) -> str | None:
        """Write a checkpoint now; returns why the first process could not, if it could not."""
        value = plain(run)
        started = time.monotonic()
        trouble: list[str] = []

        def written() -> float:
            try:
                write(value)
            except UsageError as error:
                trouble.append(str(error))
            return float(len(trouble))

        # The others wait: a launcher ends all processes when one has stopped.
        failed = self._team.once_number(written)
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
