"""RELION's image names, ``000001@stack.mrcs``: reading them, finding stacks, naming these from another folder."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hoarfrost.errors import DataError, UsageError
from hoarfrost.io.text_column import TextColumn

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
    name: str, table_path: Path, *, datadir: str | Path | None = None, use_current_folder: bool = True
) -> Path | None:
    """The file that a stack's `name` in the file `table_path` means, or None if there is none.

    It is looked for in `datadir` where that is given, with its folders and without; otherwise in the file's folder,
    then in each folder above it (RELION and cryoSPARC name images from their project folder), where the file is a link
    also in those that it leads to, then in the current folder.
    """
    return next((path for path in _places(name, table_path, datadir, use_current_folder) if _is_file(path)), None)


def found_stacks(table_path: Path, names: Iterable[str], datadir: str | Path | None) -> dict[str, Path | None]:
    """The stack of each image name, and its file where there is one. Raises DataError for a name of another form."""
    stacks: dict[str, Path | None] = {}
    for row, image_name in enumerate(names):
        name = parse_image_name(table_path, row, image_name)[1]
        if name not in stacks:
            stacks[name] = find_stack(name, table_path, datadir=datadir)
    return stacks


def found_none(name: str, table_path: Path, datadir: str | Path | None) -> tuple[str, str | None]:
    """Where a stack was looked for in vain, in words, and a hint."""
    if datadir is None:
        where = f"none in {table_path.parent}, the folders above it or the current folder"
        return where, "give the folder of the images: --datadir"
    tried = [f"{path}" for path in _places(name, table_path, datadir, use_current_folder=False)]
    return f"none in {datadir}: tried {' and '.join(tried)}", None


def check_datadir(datadir: str | Path | None) -> None:
    """Raise UsageError for a data directory that is none."""
    if datadir is not None and not Path(datadir).is_dir():
        what = "is a file" if Path(datadir).exists() else "does not exist"
        raise UsageError(f"the data directory {datadir} {what}")


def renamed(names: Iterable[str], found: Mapping[str, Path | None], output: Path) -> TextColumn:
    """Image names for the file `output`: those that lead to another file from there are changed, or to none kept."""
    new = {name: name if path is None else _name_from(output, name, path) for name, path in found.items()}
    parts = (image_name.partition("@") for image_name in names)
    return TextColumn(f"{number}@{new[name]}" for number, _, name in parts)


def _name_from(output: Path, name: str, stack_path: Path) -> str:
    """`name` if it leads to `stack_path` from the folder of `output` or one above; otherwise its path from there."""
    found = find_stack(name, output.parent / "new", use_current_folder=False)
    # A stack that takes its place after the file is not there yet.
    if found is not None and stack_path.exists() and found.samefile(stack_path):
        return name
    return os.path.relpath(stack_path.resolve(), output.parent.resolve())


def _places(name: str, table_path: Path, datadir: str | Path | None, use_current_folder: bool) -> Iterator[Path]:
    if datadir is not None:
        yield Path(datadir) / name
        if Path(name).name != name:
            yield Path(datadir) / Path(name).name
        return
    yield table_path.parent / name
    # Before the current folder, so that the same file means the same images wherever the program is started.
    for parent in dict.fromkeys([*table_path.parent.resolve().parents, *table_path.resolve().parents]):
        yield parent / name
    if use_current_folder:
        yield Path(name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or one that no file system has
        return False
