"""RELION's image names, ``000001@stack.mrcs``: reading them, and naming a stack from another folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from hoarfrost.errors import DataError

_IMAGE_NAME = re.compile(r"0*([1-9][0-9]{0,14})@(.+)")


def parse_image_name(path: Path, row: int, image_name: str) -> tuple[int, str]:
    """Number of the image in its stack, from 1, and the stack's name. `row` counts from 0.

    Raises DataError for a name of another form.
    """
    parts = _IMAGE_NAME.fullmatch(image_name)
    if parts is None:
        expected = "rlnImageName like 000001@stack.mrcs, counted from 1"
        raise DataError(path, row=row + 1, expected=expected, found=repr(image_name))
    return int(parts[1]), parts[2]


def find_stack(
    name: str, table_folder: Path, *, datadir: str | Path | None = None, use_current_folder: bool = True
) -> Path | None:
    """The file that a stack's `name` in a file of `table_folder` means, or None if there is none.

    It is looked for in `datadir` where that is given; otherwise in the file's folder, then in each folder above it
    (RELION and cryoSPARC name images from their project folder), then in the current folder.
    """
    return next((path for path in _places(name, table_folder, datadir, use_current_folder) if path.is_file()), None)


def name_from(folder: Path, name: str, stack_path: Path) -> str:
    """`name` if it leads to `stack_path` from `folder` or one above it; otherwise the path relative to `folder`."""
    found = find_stack(name, folder, use_current_folder=False)
    if found is not None and found.samefile(stack_path):
        return name
    return os.path.relpath(stack_path.resolve(), folder.resolve())


def _places(name: str, table_folder: Path, datadir: str | Path | None, use_current_folder: bool) -> Iterator[Path]:
    if datadir is not None:
        yield Path(datadir) / name
        return
    yield table_folder / name
    # Before the current folder, so that the same file means the same images wherever the program is started.
    for parent in table_folder.resolve().parents:
        yield parent / name
    if use_current_folder:
        yield Path(name)
