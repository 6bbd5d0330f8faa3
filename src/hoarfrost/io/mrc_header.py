"""The 1024-byte MRC2014 header: read with every claim checked against the file, and written.

See Cheng et al. (2015), J. Struct. Biol. 192, 146. The header's layout is mrcfile's own dtype; opening files
through mrcfile itself would turn slightly old headers (no machine stamp) into errors and allocate before the
size is checked.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mrcfile.dtypes import HEADER_DTYPE

from hoarfrost.errors import DataError
from hoarfrost.io.kinds import is_mrc, is_text, refuse_other_kinds

HEADER_BYTES = 1024
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
# IMOD's stamp and, behind it, flags, of which the first says that bytes are signed.
_IMOD_STAMP, _IMOD_AT, _IMOD_SIGNED = 1146047817, 152, 1
_LARGEST_MODE = 127
_LARGEST_SIZE = 1 << 24
_MACHINE_STAMP = 212  # byte of the header: 0x44 little endian, 0x11 big, others say nothing


@dataclass(frozen=True)
class MrcHeader:
    """What an MRC file holds, checked against its size on disk.

    `shape` is (sections, rows, columns); `axes` says which of 1 = x, 2 = y, 3 = z the columns, rows and
    sections run along; `voxel_size_A` is (x, y, z) in Å, or None where the header does not tell it.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    data_offset: int
    axes: tuple[int, int, int]
    voxel_size_A: tuple[float, float, float] | None


def read_header(path: str | Path) -> MrcHeader:
    """Read and check the header of an MRC file, either byte order, without touching the pixels.

    Raises DataError where the file is missing, is not MRC, has a mode other than 0, 1, 2, 6 or 12, or is not
    exactly as long as its header claims.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return checked_header(path, file.read(HEADER_BYTES), file.seek(0, 2))
    except OSError as error:
        raise DataError(path, expected="a readable MRC file", found=error.strerror or str(error)) from error


def checked_header(path: Path, raw: bytes, file_bytes: int | None) -> MrcHeader:
    """The header in the first bytes of a file, `raw`, checked against its length unless that is None.

    Raises DataError as `read_header` does.
    """
    if not is_mrc(raw):
        refuse_other_kinds(raw, path, "an MRC file")
    if is_text(raw):
        raise DataError(path, expected="an MRC file", found="text, or a link that was copied as text")
    if len(raw) < HEADER_BYTES:
        raise DataError(path, expected="an MRC header of 1024 bytes", found=f"a file of {len(raw)} bytes")
    fields, byte_order = _fields_and_byte_order(path, raw)

    mode = int(fields["mode"])
    if mode not in MODES:
        raise DataError(path, expected="MRC mode 0, 1, 2, 6 or 12", found=f"mode {mode}", hint="convert it to mode 2")
    shape = (int(fields["nz"]), int(fields["ny"]), int(fields["nx"]))
    dtype = np.dtype(_unsigned_if_told(mode, raw, fields, byte_order)).newbyteorder(byte_order)
    extended_bytes = int(fields["nsymbt"])
    if extended_bytes < 0:
        raise DataError(path, expected="an extended header of 0 or more bytes", found=f"{extended_bytes} bytes")

    data_offset = HEADER_BYTES + extended_bytes
    claimed_bytes = data_offset + math.prod(shape) * dtype.itemsize
    if file_bytes is not None and file_bytes != claimed_bytes:
        size = f"{shape[2]} × {shape[1]} × {shape[0]} pixels of mode {mode}"
        hint = "the file is truncated; copy it again" if file_bytes < claimed_bytes else "it is longer than its header"
        if file_bytes == claimed_bytes - extended_bytes:
            hint = (
                f"it has all pixels, but no extended header, of which it claims {extended_bytes} bytes: set nsymbt, "
                "bytes 93 to 96 of the file, to 0"
            )
        expected = f"{claimed_bytes} bytes ({size})"
        raise DataError(path, expected=expected, found=f"{file_bytes} bytes", hint=hint)
    return MrcHeader(path, shape, dtype, data_offset, _axes(path, fields), _voxel_size_A(fields))


def build_header(
    shape: tuple[int, int, int],
    pixel_size_A: float,
    *,
    is_stack: bool,
    statistics: tuple[float, float, float, float],
    mode: int = 2,
) -> bytes:
    """Header bytes of a file with origin 0.

    `statistics` is (minimum, maximum, mean, standard deviation), `mode` one of MODES.
    """
    header = np.zeros((), HEADER_DTYPE.newbyteorder("<"))
    sections = 1 if is_stack else shape[0]  # MRC2014: a stack of images is a cell one section deep, space group 0
    header["nz"], header["ny"], header["nx"] = shape
    header["mode"] = mode
    header["mz"], header["my"], header["mx"] = sections, shape[1], shape[2]
    for axis, length in zip("zyx", (sections, shape[1], shape[2]), strict=True):
        header["cella"][axis] = length * pixel_size_A
    for angle in ("alpha", "beta", "gamma"):
        header["cellb"][angle] = 90.0
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["dmin"], header["dmax"], header["dmean"], header["rms"] = statistics
    header["ispg"] = 0 if is_stack else 1
    header["nversion"] = 20141
    header["map"] = b"MAP "
    header["machst"] = [0x44, 0x44, 0, 0]
    header["nlabl"] = 1
    header["label"][0] = b"Written by hoarfrost"
    return header.tobytes()


def _fields_and_byte_order(path: Path, raw: bytes) -> tuple[Any, Literal["<", ">"]]:
    """The header as a numpy record, and the byte order ("<" or ">") in which its sizes and mode make sense."""
    stamp_says_big = raw[_MACHINE_STAMP] == 0x11
    orders: tuple[Literal["<", ">"], ...] = (">", "<") if stamp_says_big else ("<", ">")
    for order in orders:
        fields = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
        sizes = [int(fields[name]) for name in ("nx", "ny", "nz")]
        # A small positive number read in the wrong byte order is enormous.
        if 0 <= int(fields["mode"]) <= _LARGEST_MODE and all(0 < size < _LARGEST_SIZE for size in sizes):
            return fields, order
    raise DataError(path, expected="an MRC file", found="a header without sensible image sizes and mode")


def _unsigned_if_told(mode: int, raw: bytes, fields: Any, byte_order: Literal["<", ">"]) -> str:
    """The type of the pixels: modes 0 and 1 are signed unless IMOD's flag or the header's maximum says otherwise."""
    kind = MODES[mode]
    if mode == 0:
        stamp, flags = np.frombuffer(raw, f"{byte_order}i4", 2, _IMOD_AT).tolist()
        if stamp == _IMOD_STAMP and not flags & _IMOD_SIGNED:
            return "u1"
    if mode in (0, 1):
        limits = np.iinfo(kind)
        is_beyond = limits.max < float(fields["dmax"]) <= limits.max - limits.min
        if is_beyond and float(fields["dmin"]) >= 0:
            return kind.replace("i", "u")
    return kind


def _axes(path: Path, fields: Any) -> tuple[int, int, int]:
    axes = (int(fields["mapc"]), int(fields["mapr"]), int(fields["maps"]))
    if axes == (0, 0, 0):  # left out by some old programs, which meant the usual order
        return (1, 2, 3)
    if sorted(axes) != [1, 2, 3]:
        raise DataError(path, expected="axes x, y, z (1, 2, 3) in some order", found=f"axes {axes}")
    return axes


def _voxel_size_A(fields: Any) -> tuple[float, float, float] | None:
    lengths_A = [float(fields["cella"][axis]) for axis in "xyz"]
    intervals = [int(fields[name]) for name in ("mx", "my", "mz")]
    if not all(math.isfinite(length) and length > 0 for length in lengths_A) or min(intervals) <= 0:
        return None
    # A volume that was written as a stack: one section deep by its header, as long as it is.
    if intervals[2] == 1 and int(fields["nz"]) == int(fields["nx"]) and lengths_A[2] > lengths_A[0] / 2:
        intervals[2] = int(fields["nz"])
    x, y, z = (length / count for length, count in zip(lengths_A, intervals, strict=True))
    return (x, y, z)


def as_pixels(header: MrcHeader, raw: bytes | npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Bytes of whole sections as float32 (n, rows, columns)."""
    with np.errstate(invalid="ignore"):  # signalling NaN
        return np.frombuffer(raw, header.dtype).reshape(-1, *header.shape[1:]).astype(np.float32)


def read_pixels(header: MrcHeader, sections: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The chosen sections as float32 (n, rows, columns), in the order asked; nothing else is read.

    Raises DataError where the file cannot be read or has shrunk since its header was checked.
    """
    _, rows, columns = header.shape
    section_bytes = rows * columns * header.dtype.itemsize
    raw = np.empty((len(sections), section_bytes), np.uint8)
    # Plain reads and not a memory map: a file that shrinks or a network disk that fails is then an error, not
    # a crash.
    try:
        with header.path.open("rb", buffering=0) as file:
            for buffer, section in zip(raw, sections.tolist(), strict=True):
                file.seek(header.data_offset + section * section_bytes)
                if file.readinto(buffer.data) != section_bytes:
                    raise DataError(
                        header.path, expected=f"{section_bytes} bytes in section {section + 1}", found="fewer"
                    )
    except OSError as error:
        raise DataError(header.path, expected="a readable file", found=error.strerror or str(error)) from error
    return as_pixels(header, raw)
