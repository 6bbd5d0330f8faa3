"""Ctrl-C, SIGTERM and the end of the terminal while a run goes on.

The first asks it to stop and leave a checkpoint, the second ends it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self, final

from hoarfrost.parallel.launch import is_first

# A launcher passes on what the terminal has sent to all processes already: that is no second request.
SAME_REQUEST_S = 1.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@final
class Stop:
    """Listens while it is open, as a context manager; can be called at any time."""

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self._before: dict[signal.Signals, Callable[..., Any] | int | None] = {}

    def __call__(self) -> bool:
        """Whether the run was asked to stop."""
        return self._asked_at is not None

    def __enter__(self) -> Self:
        # Under nohup a run outlives its terminal.
        heard = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._hear) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # One of several processes that end together hears nothing any more, so that it can say why.
            if signal.getsignal(number) == self._hear:
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            if is_first():
                # Not print, which may be in the middle of a line of its own. The terminal may be gone.
                with contextlib.suppress(OSError):
                    os.write(2, b"\nStopping as soon as there is a checkpoint; once more to stop at once\n")
        elif time.monotonic() - self._asked_at > SAME_REQUEST_S:
            raise KeyboardInterrupt
