"""What is said on the terminal: no character, and no stream that is closed, full or gone, can stop a command."""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import IO, Any, cast, final

PLAIN = {
    "Å": "A", "×": "x", "±": "+-", "−": "-", "–": "-", "—": "-", "…": "...", "·": "*", "•": "*", "✗": "x", "→": "->",
    "°": "deg", "²": "^2", "³": "^3", "⁶": "^6", "µ": "u", "α": "alpha", "β": "beta", "θ": "theta", "κ": "kappa",
    "σ": "sigma",
    "“": '"', "”": '"', "’": "'", "│": "|", **dict.fromkeys("─━╸╺", "-"), **dict.fromkeys("╭╮╰╯", "+"),
}  # fmt: skip
"""What an encoding gets in the place of a character that it lacks; of any other, the number."""
ERRORS = "hoarfrost"


def prepare_streams() -> None:
    """Make sure that stdout and stderr are there, and take any text whatever their encoding."""
    codecs.register_error(ERRORS, _in_ascii)
    for descriptor in range(3):
        # Where one of them is closed, the next file that is opened would get its number, and what is said.
        with contextlib.suppress(OSError):
            _open_if_closed(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


def flush_stdout() -> None:
    """Raise OSError, which names the standard output, where what was printed has not got there."""
    try:
        sys.stdout.flush()
    except OSError as error:
        raise type(error)(error.errno, error.strerror, "standard output") from error


def close_quietly() -> None:
    """What stdout or stderr do not take is dropped, so that Python says and does nothing about it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _drop(stream)


def tell(line: str) -> None:
    """One line on stderr, if it can be had there."""
    with contextlib.suppress(OSError):
        print(f"hoarfrost: {' '.join(line.split())}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def optional(what: str) -> Iterator[None]:
    """Results are there, and this block adds `what` to them: where it fails, one line tells so and nothing else."""
    try:
        yield
    except BrokenPipeError:  # the reader, `head` perhaps, has left
        _drop(sys.stdout)
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
        tell(f"the results are complete, but {what} cannot be written: {reason}")
        close_quietly()


def unfailing(stream: Any) -> IO[str]:
    """The stream for what is worth saying but not worth a failure: what it cannot write is dropped."""
    return cast("IO[str]", _Unfailing(stream))


@final
class _Unfailing(io.TextIOBase):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except ValueError:  # closed
            pass
        except OSError:
            _drop(self._stream)

    def isatty(self) -> bool:
        return bool(self._stream.isatty())

    def fileno(self) -> int:
        return int(self._stream.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(self._stream.encoding)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_character_in_ascii, error.object[error.start : error.end])), error.end


def _character_in_ascii(character: str) -> str:
    if character in PLAIN:
        return PLAIN[character]
    # A byte of a file name that is no UTF-8 is shown as that byte.
    code = ord(character) - 0xDC00 if "\udc80" <= character <= "\udcff" else ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        os.open(os.devnull, os.O_RDWR)


def _drop(stream: Any) -> None:
    """From now on the stream leads nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
