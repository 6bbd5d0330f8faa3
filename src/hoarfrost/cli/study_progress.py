"""How far a study is: a progress bar on a terminal, a line a method in a log."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import Progress

from hoarfrost.cli.progress import make_bar
from hoarfrost.cli.terminal import unfailing

if TYPE_CHECKING:
    from hoarfrost.study import benchmark as study


class StudyProgress:
    """A callback for `hoarfrost.benchmark`, on stderr; use it as a context manager. Silent until the first event."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._quiet = quiet
        self._console = console or Console(file=unfailing(sys.stderr), highlight=False)
        self._doing = ""
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: study.Progress) -> None:
        """Show `event`."""
        if self._quiet:
            return
        if not self._console.is_terminal:
            if event.doing != self._doing:
                self._console.print(f"{event.fraction_done:4.0%}  {event.doing}", markup=False, soft_wrap=True)
            self._doing = event.doing
            return
        if self._bar is None:
            self._bar = make_bar(self._console, event.doing)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=event.fraction_done, description=event.doing)
