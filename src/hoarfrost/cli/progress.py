"""What a running reconstruction shows: a bar on a terminal, plain lines in a log."""

import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from hoarfrost.cli.terminal import unfailing
from hoarfrost.durations import about
from hoarfrost.reconstruction.watch.events import Event

LINE_INTERVAL_S = 10.0
"""A log gets a line at least this often, besides one for each stage and message."""
# Before so much is done nobody knows how fast the rest will go.
LEAST_DONE_TO_TELL = 0.02


class _TimeLeftColumn(ProgressColumn):
    """The time left by what was done since the beginning: rich's own follows the last seconds, and jumps."""

    def render(self, task: Task) -> Text:
        """Like "about 3 min left"."""
        done = task.completed
        if task.elapsed is None or done < LEAST_DONE_TO_TELL or done >= 1:
            return Text("")
        return Text(f"{about(task.elapsed * (1 - done) / done)} left", style="progress.remaining")


def make_bar(console: Console, description: str) -> Progress:
    """A progress bar of one task, from 0 to 1, with the times elapsed and left before its description; one line."""
    one_line = Column(no_wrap=True, overflow="ellipsis")
    bar = Progress(
        BarColumn(bar_width=16),
        TaskProgressColumn(table_column=Column(no_wrap=True, min_width=4)),
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        _TimeLeftColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.description}", table_column=one_line),
        console=console,
    )
    bar.add_task(description, total=1.0)
    return bar


class Display:
    """A bar on a terminal, or else lines, on stderr unless `quiet`; a context manager."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._quiet = quiet
        self._console = console or Console(file=unfailing(sys.stderr), highlight=False)
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show_bar(self, description: str, completed: float = 0.0) -> None:
        if self._bar is None:
            self._bar = make_bar(self._console, description)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=completed, description=description)


class ProgressDisplay(Display):
    """A callback for `hoarfrost.reconstruct` that shows its events on stderr; use it as a context manager."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        super().__init__(quiet=quiet, console=console)
        self._stage: int | None = None
        self._nll, self._resolution_A = "", 0.0
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self._started = self._last_line = time.monotonic()
        if self._console.is_terminal and not self._quiet:
            self._show_bar("reading the particles")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None and kind is None:
            self._bar.update(self._bar.task_ids[0], completed=1.0)
        super().__exit__(kind)

    def say(self, message: str) -> None:
        """Show a line of its own."""
        if not self._quiet:
            self._console.print(message, markup=False, soft_wrap=not self._console.is_terminal)

    def __call__(self, event: Event) -> None:
        """Show `event`."""
        if self._quiet:
            return
        if event.message:
            # It may come from elsewhere than where the work is.
            self.say(event.message)
            return
        if event.resolution_A != self._resolution_A:  # an NLL is that of its own band limit
            self._resolution_A, self._nll = event.resolution_A, ""
        if event.nll is not None:  # not every event carries one: keep showing the last
            error = "" if event.nll_standard_error is None else f" ± {event.nll_standard_error:.2f}"
            self._nll = f"  NLL {event.nll:.2f}{error}"
        status = f"{event.resolution_A:.1f} Å{self._nll}"
        if self._bar is not None:
            self._show_bar(status, event.fraction_done)
            return
        now = time.monotonic()
        if event.stage != self._stage or now - self._last_line >= LINE_INTERVAL_S:
            self._stage, self._last_line = event.stage, now
            elapsed = f"{now - self._started:.0f} s"
            self._console.print(
                f"{event.fraction_done:4.0%}  {elapsed:>6}  iteration {event.iteration}  {status}",
                soft_wrap=True,
            )
