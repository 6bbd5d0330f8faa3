"""Files that are either complete or absent: write beside the target, fsync, then rename over it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from hoarfrost.errors import UsageError

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def is_leftover(name: str) -> bool:
    """Whether a file of that name is what `atomic_output` leaves behind where the process is killed."""
    return _LEFTOVER.fullmatch(name) is not None


@contextlib.contextmanager
def atomic_output(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; when the block succeeds it becomes `path`.

    On any failure the temporary file is removed and a previous `path` is left as it was.
    Raises UsageError where the system cannot write (disk full, no permission, no such folder).
    """
    target = Path(path)
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        # After a successful rename there is nothing left to remove.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    # Makes the rename survive a power cut. Some network file systems refuse it for folders; the file is in
    # place then.
    with contextlib.suppress(OSError):
        _fsync(target.parent)


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all. Raises UsageError as `atomic_output` does."""
    with atomic_output(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
