"""The errors a user can cause, each one line long, and the exit code that the command line gives them."""

from pathlib import Path


class HoarfrostError(Exception):
    """Base of every error that is the input's fault and not the program's: shown as one line, without a traceback."""

    exit_code: int = 1


class UsageError(HoarfrostError):
    """The command or call itself is wrong: an option out of range, a folder that exists. Exit code 2."""

    exit_code = 2


class DataError(HoarfrostError):
    """A file is not what it should be. Exit code 3.

    The message reads ``file, row 12: expected …, found …; what to do``.
    """

    exit_code = 3

    def __init__(
        self,
        path: str | Path,
        *,
        expected: str,
        found: str,
        row: int | None = None,
        hint: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.row = row
        self.expected = expected
        self.found = found
        self.hint = hint
        where = f"{self.path}" if row is None else f"{self.path}, row {row}"
        text = f"{where}: expected {expected}, found {found}"
        super().__init__(text if hint is None else f"{text}; {hint}")


class NotConvergedError(HoarfrostError):
    """A run has ended and written its results, but they are not to be trusted. Exit code 4."""

    exit_code = 4


class StoppedError(HoarfrostError):
    """A run was asked to stop, and did; the message tells the command that goes on with it. Exit code 5."""

    exit_code = 5


class FinishedError(HoarfrostError):
    """A run that is to go on has come to its end before; its results are there. Exit code 0."""

    exit_code = 0


class LostProcessError(HoarfrostError):
    """One of several processes that work together has ended, or does not answer. Exit code 1."""


class ToldElsewhereError(HoarfrostError):
    """Another of several processes has told the user what ended them all; this one says nothing."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__("ended by a failure that another process has told")
