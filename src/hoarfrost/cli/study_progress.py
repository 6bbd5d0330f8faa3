"""How far a study is: a progress bar on a terminal, a line a method in a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hoarfrost.cli.progress import Display

if TYPE_CHECKING:
    from hoarfrost.study import benchmark as study


class StudyProgress(Display):
    """A callback for `hoarfrost.benchmark`, on stderr; use it as a context manager. Silent until the first event."""

    _doing = ""

    def __call__(self, event: study.Progress) -> None:
        """Show `event`."""
        if self._quiet:
            return
        if self._console.is_terminal:
            self._show_bar(event.doing, event.fraction_done)
        elif event.doing != self._doing:
            self._console.print(f"{event.fraction_done:4.0%}  {event.doing}", markup=False, soft_wrap=True)
        self._doing = event.doing
