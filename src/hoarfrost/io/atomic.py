"""Files that are either complete or absent: write beside the target, fsync, then rename over it."""

import contextlib
import os
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

from hoarfrost.errors import UsageError

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
# RELION's own files, a submitted script and the logs of Slurm, PBS, SGE and LSF; hidden files.
_OF_JOB = re.compile(
    r"\..*|job(_pipeline)?\.star|default_pipeline\.star|job\.json|note\.txt|RELION_.*|slurm.*|submit.*|"
    r".*\.(log|out|err|sh|slurm|sbatch|pbs|lsf|script)|.*\.p?[eo][0-9]+([.-][0-9]+)?"
)


def is_leftover(name: str) -> bool:
    """Whether a file of that name is what `atomic_output` leaves behind where the process is killed."""
    return _LEFTOVER.fullmatch(name) is not None


def is_of_job(name: str) -> bool:
    """Whether a file of that name is what RELION or a scheduler puts into the folder of a job before it begins."""
    return _OF_JOB.fullmatch(name) is not None


def check_names(*paths: str | Path | None) -> None:
    """Raise UsageError for a path that is no UTF-8, which no file that names it could hold."""
    for told in [os.path.abspath(path) for path in paths if path is not None]:
        try:
            if os.fsencode(told).decode("utf-8") == told:
                continue
        except UnicodeDecodeError:
            pass
        of_locale = sys.getfilesystemencoding().lower() != "utf-8"
        hint = "set LC_ALL=C.UTF-8" if of_locale else "rename it"
        raise UsageError(f"{ascii(told)[1:-1]} is not in UTF-8, as the files that name it have to be; {hint}")


@contextlib.contextmanager
def writing_to(path: str | Path) -> Iterator[None]:
    """Turn what the system says against writing in this block into a UsageError."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def atomic_output(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; when the block succeeds it becomes `path`.

    On any failure the temporary file is removed and a previous `path` is left as it was.
    Raises UsageError where the system cannot write (disk full, no permission, no such folder).
    """
    target = Path(path)
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    try:
        with writing_to(target):
            yield temporary
            _fsync(temporary)
            os.replace(temporary, target)
    finally:
        # After a successful rename there is nothing left to remove.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    # Makes the rename survive a power cut. Some network file systems refuse it for folders; the file is in
    # place then.
    with contextlib.suppress(OSError):
        _fsync(target.parent)


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all.

    Raises UsageError as `atomic_output` does, and for a text with a file name that is no UTF-8.
    """
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        found = ascii(text[max(0, error.start - 20) : error.end])
        raise UsageError(f"cannot write {path}: its text is not in UTF-8, at {found}") from error
    with atomic_output(path) as temporary:
        temporary.write_bytes(content)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
