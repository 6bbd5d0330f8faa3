"""What kind of file it is by how it begins, for hints to somebody who gave another kind than was asked for."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hoarfrost.errors import DataError

_GZIP, _NUMPY = b"\x1f\x8b", b"\x93NUMPY"
_OTHERS = {
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a picture (PNG)",
    b"II*\0": "a TIFF file",
    b"MM\0*": "a TIFF file",
    b"PK\x03\x04": "a ZIP file",
    b"BZh": "a file compressed by bzip2",
    b"\xfd7zXZ": "a file compressed by xz",
    b"%PDF": "a PDF file",
}
_MRC_HINT = "give the STAR or .cs file that names the images"
_CS_HINT = "it has to have a name that ends in .cs"


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Raise DataError for a path that is no file, and for what the system refuses in this block."""
    if not path.is_file():
        raise DataError(path, expected=f"a {what}", found="a folder" if path.is_dir() else "no such file")
    try:
        yield
    except OSError as error:
        raise DataError(path, expected=f"a readable {what}", found=error.strerror or str(error)) from error


def refuse_other_kinds(start: bytes, path: Path, expected: str) -> None:
    """Raise DataError for a file of a known kind that is no text, by how it begins: 216 bytes are enough."""
    found, hint = next((what for magic, what in _OTHERS.items() if start.startswith(magic)), ""), None
    if start.startswith(_GZIP):
        found, hint = "a file compressed by gzip", "gunzip it first"
    elif start.startswith(_NUMPY):
        found, hint = "a .cs file of cryoSPARC or another array of NumPy", None if path.suffix == ".cs" else _CS_HINT
    elif not found and is_mrc(start):
        found, hint = "images or a map (MRC)", _MRC_HINT
    if found:
        raise DataError(path, expected=expected, found=found, hint=hint)


def is_mrc(start: bytes) -> bool:
    """Whether a file that begins so holds an MRC header: the word MAP, or sizes and a mode that make sense."""
    if len(start) < 212 or (b"\n" in start[:16].rstrip(b"\0") and start[:16].isascii() and b"\0" not in start[:16]):
        return False
    if start[208:211] == b"MAP":
        return True
    for order in ("little", "big"):
        nx, ny, nz, mode = (int.from_bytes(start[i : i + 4], order) for i in range(0, 16, 4))
        if mode in (0, 1, 2, 6, 12) and all(0 < size < 1 << 20 for size in (nx, ny, nz)):
            return True
    return False


def is_text(start: bytes) -> bool:
    """Whether a file that begins so is text, a table perhaps."""
    return bool(start) and b"\0" not in start and sum(byte < 32 and byte not in b"\t\r\n" for byte in start) == 0
