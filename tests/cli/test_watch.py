"""The page of a run that goes on: how often it is written, what time that takes, and what becomes of a failure."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from hoarfrost.cli import watch as watch_module
from hoarfrost.cli.watch import Watch


class Clock:
    """A clock that only tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watch_module, "time", clock)
    return clock


@pytest.fixture
def pages(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float | None]]:
    """When pages were written, and after how many seconds they are to be loaded again; each takes two seconds."""
    written: list[tuple[float, float | None]] = []

    def write(folder: Path, reload_s: float | None) -> None:
        assert folder == Path("run")
        clock.now += 2.0
        written.append((clock.now, reload_s))

    module = ModuleType("hoarfrost.reporting.report")
    setattr(module, "report", write)  # noqa: B010
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return written


def go(watch: Callable[[SimpleNamespace], None], clock: Clock, seconds: float, of_s: float) -> None:
    """Ten events a second."""
    start = clock.now
    while clock.now < start + seconds:
        clock.now += 0.1
        watch(SimpleNamespace(fraction_done=(clock.now - start) / of_s))


def test_pages_take_less_than_a_twentieth_of_the_time(clock: Clock, pages: list[tuple[float, float | None]]) -> None:
    with Watch(Path("run"), print) as watch:
        go(watch, clock, 600, of_s=600)
    last = 2.5  # what is drawn when the run has ended
    assert (2.0 * len(pages) + last) / 600 < 0.046
    assert len(pages) >= 10
    first = pages[0][0] - 1000
    assert first < 15, "a long run shows itself soon"
    assert all(reload_s is not None and reload_s >= 30 for _, reload_s in pages)


def test_a_run_of_a_minute_or_two_gets_no_page_before_its_end(
    clock: Clock, pages: list[tuple[float, float | None]]
) -> None:
    with Watch(Path("run"), print) as watch:
        go(watch, clock, 100, of_s=100)
    assert pages == []


def test_the_page_of_a_run_that_was_stopped_does_not_say_that_it_goes_on(
    clock: Clock, pages: list[tuple[float, float | None]]
) -> None:

    def stopped_after(seconds: float) -> None:
        with Watch(Path("run"), print) as watch:
            go(watch, clock, seconds, of_s=600)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped_after(20)
    assert [reload_s for _, reload_s in pages] == [pages[0][1], None]
    with pytest.raises(KeyboardInterrupt):
        stopped_after(1)
    assert len(pages) == 2, "where there was no page yet, there is none"


def test_a_page_that_fails_is_told_once_and_the_run_goes_on(
    clock: Clock, pages: list[tuple[float, float | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, said = [], []

    def fail(folder: Path, reload_s: float | None) -> None:
        tries.append(folder)
        raise OSError("no space left")

    monkeypatch.setattr(sys.modules["hoarfrost.reporting.report"], "report", fail)
    with Watch(Path("run"), said.append) as watch:
        go(watch, clock, 600, of_s=600)
    assert len(tries) == len(said) == 1
    assert "no space left" in said[0]
