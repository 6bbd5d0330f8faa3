"""What is said on a terminal that cannot say it, or is not there."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable

import pytest

from hoarfrost.cli import main
from hoarfrost.cli.stop import Stop
from hoarfrost.cli.terminal import ERRORS, PLAIN, flush_stdout, optional, prepare_streams, unfailing


def test_any_text_can_be_said_in_ascii() -> None:
    prepare_streams()
    assert "64.0 Å ± 2 …".encode("ascii", ERRORS) == b"64.0 A +- 2 ..."
    assert "dön粒\U0001f600".encode("ascii", ERRORS) == rb"d\xf6n\u7c92\U0001f600"
    assert os.fsdecode(b"d\xe9p").encode("utf-8", ERRORS) == rb"d\xe9p"
    assert all(plain.isascii() for plain in PLAIN.values())


@pytest.mark.parametrize("command", ["", "inspect", "reconstruct", "simulate", "symmetrise", "benchmark", "bench"])
def test_help_in_ascii_is_readable(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*filter(None, [command]), "--help"]) == 0
    lacking = {c for c in capsys.readouterr().out if not c.isascii()} - PLAIN.keys()
    assert lacking <= set("δφψ½⅓"), lacking


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no\nbackend"), "the results are complete, but its page cannot be written: ValueError: no backend"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "cannot be written: Input/output error"),
        (BrokenPipeError(), ""),
    ],
)
def test_what_is_optional_fails_in_one_line(error: Exception, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with optional("its page"):
        raise error
    found = capsys.readouterr().err
    assert told in found
    assert found.count("\n") == bool(told)


def test_an_interrupt_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt), optional("its page"):
        raise KeyboardInterrupt


class _Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_progress_is_dropped_where_it_cannot_be_shown() -> None:
    stream = unfailing(_Full())
    assert stream.write("50%") == 3
    stream.flush()
    assert not stream.isatty()
    heard = io.StringIO()
    print("50%", file=unfailing(heard), flush=True)
    assert heard.getvalue() == "50%\n"


def test_results_that_do_not_get_out_are_an_error_that_names_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", _Full())
    with pytest.raises(OSError, match="No space left on device: 'standard output'"):
        flush_stdout()


@pytest.mark.parametrize(("handler", "hears"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_the_end_of_the_terminal_stops_a_run_unless_under_nohup(
    handler: Callable[..., None], hears: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with Stop() as stop:
            assert (signal.getsignal(signal.SIGHUP) != handler) is hears
            if hears:
                os.kill(os.getpid(), signal.SIGHUP)
                assert stop()
        assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)
