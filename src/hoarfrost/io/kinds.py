"""What kind of file it is by how it begins, for hints to somebody who gave another kind than was asked for."""

from pathlib import Path

_GZIP, _NUMPY, _PARQUET = b"\x1f\x8b", b"\x93NUMPY", b"PAR1"
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
HINTS = {
    "MRC": "give the STAR or .cs file that names the images",
    "gzip": "gunzip it first",
    "cs": "it has to have a name that ends in .cs",
    "text": "give the file of the images, not the table that names them",
}


def other_kind(start: bytes, path: Path) -> tuple[str, str | None] | None:
    """What a file is that begins with `start` (216 bytes are enough), in words, and a hint; None for plain text."""
    if start.startswith(_GZIP):
        return "a file compressed by gzip", HINTS["gzip"]
    if start.startswith(_NUMPY):
        return "a .cs file of cryoSPARC or another array of NumPy", None if path.suffix == ".cs" else HINTS["cs"]
    for magic, what in _OTHERS.items():
        if start.startswith(magic):
            return what, None
    if is_mrc(start):
        return "images or a map (MRC)", HINTS["MRC"]
    return None


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
