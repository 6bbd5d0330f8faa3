"""The page of a run that is going on, written anew now and then, at a small share of the run's time."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from hoarfrost.reconstruction.watch.events import Event

# With the writing of live maps (`reconstruction.watch.live`) drawing stays below a twentieth of the time.
SHARE_OF_TIME = 0.045
# The last page and the pictures of each structure.
END_COST_S = 2.5
LEAST_INTERVAL_S = 10.0
# The first page, until it has been timed: matplotlib and plotly load with it.
FIRST_COST_S = 3.0
# A browser spends about a second of the same processor on a page that it loads again.
LEAST_RELOAD_S = 30.0


class Watch:
    """A callback for `hoarfrost.reconstruct` that keeps report.html in its `folder` up to date; a context manager.

    It spends a fixed share of the run's time, of which the pictures of all `structures` at the end come first. The
    first page comes as soon as the run is known to be long enough for it. A page that fails is told by `say`, and no
    other follows.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], structures: int = 1) -> None:
        self._folder, self._say = folder, say
        self._started = self._last = time.monotonic()
        self._cost_s, self._spent_s = FIRST_COST_S, structures * END_COST_S
        self._is_first, self._has_failed = True, False

    def __enter__(self) -> Self:
        self._started = self._last = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self._is_first:
            with contextlib.suppress(Exception):  # what ended the run is what the user is to hear of
                self._write(None)

    def __call__(self, event: Event) -> None:
        """Write the page if it is time."""
        now = time.monotonic()
        passed_s = now - self._started
        of_s = passed_s / max(event.fraction_done, 1e-3) if self._is_first else passed_s
        is_time = now - self._last >= LEAST_INTERVAL_S and self._spent_s + self._cost_s <= SHARE_OF_TIME * of_s
        if self._has_failed or not is_time:
            return
        self._is_first = False
        try:
            self._write(max(LEAST_RELOAD_S, round(self._cost_s / SHARE_OF_TIME)))
        except Exception as problem:
            self._has_failed = True
            self._say(f"The page of the run could not be written, and will not be until its end: {problem}")
        self._last = time.monotonic()
        self._cost_s = self._last - now
        self._spent_s += self._cost_s

    def _write(self, reload_s: float | None) -> None:
        from hoarfrost.reporting.report import report

        report(self._folder, reload_s)


@contextlib.contextmanager
def watched(folder: Path, *, quiet: bool, structures: int = 1) -> Iterator[Callable[[Event], None]]:
    """What to call with each event of a run into `folder`: it shows progress unless `quiet`, and keeps the page."""
    from hoarfrost.cli.progress import ProgressDisplay

    with ProgressDisplay(quiet=quiet) as display, Watch(folder, display.say, structures) as watch:

        def progress(event: Event) -> None:
            display(event)
            watch(event)

        yield progress
