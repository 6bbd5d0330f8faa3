"""Folders and files that results are written to: what is a user's own is never replaced."""

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hoarfrost.errors import UsageError
from hoarfrost.io.atomic import is_of_job, writing_to


def check_output(
    output: Path, overwrite: bool, others: Callable[[Path], Iterable[Path]], *, command: str, hint: str = ""
) -> None:
    """Raise UsageError where the folder exists, unless it is empty, or may be replaced and `command` wrote all of it.

    What RELION or a scheduler puts there beforehand is no hindrance.

    `others` finds what the command did not write; `hint` says what else the user may do than overwrite.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; choose another folder")
    if not output.exists() or all(is_of_job(path.name) for path in output.iterdir()):
        return
    if not overwrite:
        raise UsageError(f"{output} exists; choose another folder or give --overwrite{hint}")
    found = sorted(str(path.relative_to(output)) for path in others(output))
    if found:
        raise UsageError(f"{output} holds {found[0]}, which {command} did not write; choose another folder")


def check_files(folder: str | Path, names: Iterable[str], *, overwrite: bool) -> None:
    """Raise UsageError where the folder is a file, or holds one of these files that may not be replaced."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose another folder")
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise UsageError(f"{folder / there[0]} exists; choose another folder or give --overwrite")


def check_file(path: Path, inputs: Iterable[str | Path], *, overwrite: bool) -> None:
    """Raise UsageError where the file is one of the inputs, or exists and may not be replaced."""
    if not path.exists():
        return
    if any(Path(source).exists() and path.samefile(source) for source in inputs):
        raise UsageError(f"{path} is an input; choose another output")
    if not overwrite:
        raise UsageError(f"{path} exists; choose another name or give --overwrite")


def make_folder(folder: str | Path, names: Iterable[str]) -> Path:
    """Make the folder, or remove these files and folders of an earlier run in it, which must not pass for new ones.

    Raises UsageError where that cannot be done.
    """
    folder = Path(folder)
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / name for name in names):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return folder


@contextlib.contextmanager
def folder_in_place(output: Path) -> Iterator[Path]:
    """A folder beside `output` that takes its place when the block succeeds, and vanishes where it fails.

    Raises UsageError where the system cannot write.
    """
    token = secrets.token_hex(4)
    temporary, old = (output.parent / f".{output.name}.{token}.{end}" for end in ("tmp", "old"))
    try:
        with writing_to(output):
            temporary.mkdir(parents=True)
        yield temporary
        with writing_to(output):
            if output.exists():
                output.replace(old)
            temporary.replace(output)
            for path in [*old.iterdir()] if old.exists() else []:
                if is_of_job(path.name):
                    path.replace(output / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if output.exists():
            shutil.rmtree(old, ignore_errors=True)
