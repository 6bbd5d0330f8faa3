"""Rows of a .cs file with every field that it has: what a STAR file has no place for is kept as well."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hoarfrost.io.cs import Records, with_fields
from hoarfrost.io.image_names import renamed
from hoarfrost.io.text_column import TextColumn


def named_from(records: Records, names: TextColumn, found: dict[str, Path | None], output: Path) -> Records:
    """The rows with stacks named as they are found from the file `output`; `names` (n,) are RELION's of the images."""
    paths = (name.partition("@")[2] for name in renamed(names, found, output))
    return with_fields(records, {"blob/path": _paths(records, list(paths))})


def shrunk_records(records: Records, stack: Path, factor: float, box: int) -> Records:
    """The rows of particles whose images are now those of `stack`, one after the other, of pixels `factor` as large.

    Shifts are in pixels: those of every alignment shrink, and its pixel size grows with the images'.
    """
    n = len(records)
    new: dict[str, npt.NDArray[np.generic]] = {
        "blob/path": _paths(records, [stack.name] * n),
        "blob/idx": np.arange(n, dtype=np.uint32),
        "blob/shape": np.full((n, 2), box, np.uint32),
        "blob/import_sig": np.zeros(n, np.uint64),
    }
    for name in records.dtype.names or ():
        group, _, field = name.partition("/")
        is_of_pixels = group == "blob" or group.startswith("alignments")
        if is_of_pixels and field == "psize_A":
            new[name] = (records[name] * factor).astype(records.dtype[name].base)
        elif is_of_pixels and field == "shift":
            new[name] = (records[name] / factor).astype(records.dtype[name].base)
    return with_fields(records, new)


def _paths(records: Records, paths: list[str]) -> npt.NDArray[np.bytes_]:
    """Paths of images, with the ``>`` by which cryoSPARC marks those within a project where they had it."""
    marks = [b">" if path[:1] in (b">", ">") else b"" for path in records["blob/path"].tolist()]
    return np.array([mark + path.encode() for mark, path in zip(marks, paths, strict=True)], np.bytes_)
