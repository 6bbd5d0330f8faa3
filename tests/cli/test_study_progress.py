"""The display of a study's progress."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich.console import Console

from hoarfrost.cli.study_progress import StudyProgress


@dataclass(frozen=True)
class Event:
    fraction_done: float
    doing: str


def shown(*, terminal: bool, quiet: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, highlight=False)
    with StudyProgress(quiet=quiet, console=console) as progress:
        for event in (Event(0.1, "SGD"), Event(0.2, "SGD"), Event(0.5, "auto")):
            progress(event)
    return file.getvalue()


def test_a_log_gets_a_line_a_method() -> None:
    assert shown(terminal=False).splitlines() == [" 10%  SGD", " 50%  auto"]


def test_a_terminal_gets_a_bar() -> None:
    assert "50%" in shown(terminal=True)
    assert "auto" in shown(terminal=True)


def test_quiet_is_silent() -> None:
    assert shown(terminal=True, quiet=True) == ""
