"""Folders for pictures that a user asked for: nothing of theirs is replaced unasked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hoarfrost.errors import UsageError


def check_folder(folder: str | Path, files: Iterable[str], *, overwrite: bool) -> None:
    """Raise UsageError where the folder is a file, or holds one of `files` that may not be replaced."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose another folder")
    there = [name for name in files if (folder / name).exists()]
    if there and not overwrite:
        raise UsageError(f"{folder / there[0]} exists; choose another folder or give --overwrite")


def make_folder(folder: str | Path, files: Iterable[str]) -> Path:
    """Make the folder, without `files` of before: an old picture must not pass for a new one.

    Raises UsageError where that cannot be done.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in files:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder
