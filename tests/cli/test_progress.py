"""The progress display: a bar on a terminal, plain lines in a log, nothing when quiet."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import pytest
from rich.console import Console

from hoarfrost.cli import progress as progress_module
from hoarfrost.cli.progress import ProgressDisplay
from hoarfrost.durations import about


@dataclass(frozen=True)
class Event:
    iteration: int = 0
    stage: int = 0
    resolution_A: float = 48.26
    nll: float | None = None
    nll_standard_error: float | None = None
    fraction_done: float = 0.0
    message: str | None = None


def shown(events: list[Event], *, terminal: bool, quiet: bool = False, width: int = 80) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, color_system=None, width=width, highlight=False)
    with ProgressDisplay(quiet=quiet, console=console) as progress:
        for event in events:
            progress(event)
    return stream.getvalue()


def test_a_log_gets_a_line_for_each_stage_and_not_for_each_iteration() -> None:
    events = [Event(iteration=i, stage=i // 50, fraction_done=i / 100) for i in range(100)]
    lines = shown(events, terminal=False).splitlines()
    assert len(lines) == 2
    assert "iteration 50" in lines[1]
    assert "50%" in lines[1]
    assert "48.3 Å" in lines[1]


def test_a_log_gets_a_line_when_some_time_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "LINE_INTERVAL_S", 0.0)
    assert len(shown([Event(), Event(iteration=1)], terminal=False).splitlines()) == 2


def test_messages_are_shown_as_they_are() -> None:
    assert shown([Event(message="contrast [turned]: protein was black")], terminal=False).startswith(
        "contrast [turned]: protein was black\n"
    )


def test_the_last_likelihood_stays_on_the_line_until_the_band_limit_changes() -> None:
    events = [Event(nll=104.2119, nll_standard_error=0.314), Event(iteration=1, stage=1)]
    assert shown(events, terminal=False).count("NLL 104.21 ± 0.31") == 2
    finer = Event(iteration=2, stage=2, resolution_A=40.0)
    assert shown([*events, finer], terminal=False).splitlines()[-1].endswith("iteration 2  40.0 Å")


def test_a_message_from_elsewhere_does_not_move_the_status() -> None:
    events = [Event(nll=104.2, resolution_A=40.0), Event(message="2 of 2 agree"), Event(stage=1, resolution_A=40.0)]
    assert shown(events, terminal=False).count("40.0 Å  NLL 104.20") == 2


@pytest.mark.parametrize(
    ("seconds", "words"), [(4, "about 10 s"), (44, "about 40 s"), (200, "about 3 min"), (9000, "about 2.5 h")]
)
def test_the_time_left_has_the_digits_of_an_estimate(seconds: float, words: str) -> None:
    assert about(seconds) == words


@pytest.mark.parametrize("width", [62, 80, 120])
def test_a_terminal_gets_one_bar_that_fits(width: int) -> None:
    text = shown([Event(), Event(nll=1042.11, nll_standard_error=0.314, fraction_done=0.4)], terminal=True, width=width)
    assert "100%" in text
    assert "48.3 Å  NLL 1042.11 ± 0.31" in text
    assert max(len(line) for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text))) <= width


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_shows_nothing(terminal: bool) -> None:
    assert shown([Event(message="something")], terminal=terminal, quiet=True) == ""


def test_the_bar_is_taken_down_when_the_work_fails() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system=None)

    def interrupted() -> None:
        with ProgressDisplay(console=console) as progress:
            progress(Event(fraction_done=0.2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "\x1b[?25h" in stream.getvalue(), "the cursor is shown again"
    assert "100%" not in stream.getvalue()
