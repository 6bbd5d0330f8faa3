"""MRC volumes, and stacks of images that are never loaded whole."""

import gzip
import math
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, final

import numpy as np
import numpy.typing as npt

from hoarfrost.errors import DataError
from hoarfrost.io.atomic import atomic_output
from hoarfrost.io.mrc_header import (
    HEADER_BYTES,
    MODES,
    MrcHeader,
    as_pixels,
    build_header,
    checked_header,
    read_header,
    read_pixels,
)

_VOXEL_SIZE_TOLERANCE = 1e-3
_GIVE = "give the size in Å: --pixel-size"
# gzip shrinks nothing to less than a thousandth: what a header claims beyond is not there.
_MOST_GZIP = 1100


def read_volume(
    path: str | Path, pixel_size_A: float | None = None, untold_A: float | None = None
) -> tuple[npt.NDArray[np.float32], float]:
    """Read a cubic map, also a compressed one (.mrc.gz, .map.gz): float32 [z, y, x] and its pixel size in Å.

    A `pixel_size_A` given here replaces the header's; `untold_A` stands for one that the header does not tell. Raises
    DataError where the file is not a whole MRC file, the map is not cubic or holds NaN or infinity, or no pixel size is
    known.
    """
    is_compressed = Path(path).name.lower().endswith(".gz")
    header = _compressed_header(Path(path)) if is_compressed else read_header(path)
    if len(set(header.shape)) != 1:
        sections, rows, columns = header.shape
        raise DataError(path, expected="a cubic map", found=f"{columns} × {rows} × {sections} voxels")
    if pixel_size_A is None:
        pixel_size_A = _cubic_voxel_size_A(header.path, header.voxel_size_A, untold_A)
    if not (math.isfinite(pixel_size_A) and pixel_size_A > 0):
        raise ValueError(f"pixel_size_A must be positive, not {pixel_size_A}")
    stored = _decompressed(header) if is_compressed else read_pixels(header, np.arange(header.shape[0]))
    if not np.isfinite(stored).all():
        raise DataError(path, expected="finite voxel values", found="NaN or infinity")
    # The file runs along sections, rows, columns; `stored_axes` names those three, and we want z, y, x.
    stored_axes = header.axes[::-1]
    return np.ascontiguousarray(stored.transpose([stored_axes.index(axis) for axis in (3, 2, 1)])), pixel_size_A


def write_volume(path: str | Path, volume: npt.ArrayLike, pixel_size_A: float) -> None:
    """Write a volume [z, y, x] as an MRC map of mode 2 with origin 0, whole or not at all.

    Raises ValueError where the volume is not three-dimensional or not finite, UsageError where it cannot be
    written.
    """
    values = np.ascontiguousarray(volume, dtype="<f4")
    if values.ndim != 3:
        raise ValueError(f"volume must have shape (z, y, x), not {values.shape}")
    _write(path, (values.shape[0], values.shape[1], values.shape[2]), pixel_size_A, [values], is_stack=False)


def write_stack(
    path: str | Path,
    n_images: int,
    box: tuple[int, int],
    pixel_size_A: float,
    batches: Iterable[npt.NDArray[Any]],
    *,
    is_float16: bool = False,
) -> None:
    """Write a stack of `n_images` images of `box` (ny, nx) as mode 2, or 12 of 16 bits, holding one batch at a time.

    `batches` yields arrays (b, ny, nx). Raises ValueError where they do not add up to `n_images` or are not
    finite, which of 16 bits numbers beyond 65,504 are not; UsageError where the file cannot be written.
    """
    _write(path, (n_images, *box), pixel_size_A, batches, is_stack=True, mode=12 if is_float16 else 2)


@final
class ImageStack:
    """A stack of images on disk, checked when opened and read a few images at a time.

    `path` is the file, `n_images` their number, `box` the size of each in pixels, (ny, nx). `pixel_size_A` is the
    header's along x in Å, or None where it does not tell one. Nothing stays open between reads, so that it can be
    copied to another process.
    """

    def __init__(self, path: str | Path) -> None:
        """Check the header against the file's size. Raises DataError as `read_header` does."""
        self._header = header = read_header(path)
        if header.axes != (1, 2, 3):
            raise DataError(path, expected="axes in the order x, y, z", found=f"axes {header.axes}")
        self.path, self.n_images, self.box = header.path, header.shape[0], header.shape[1:]
        self.pixel_size_A = None if header.voxel_size_A is None else header.voxel_size_A[0]

    def read(self, indices: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Images (b, ny, nx) float32 in the order of `indices`, an integer array (b,) counted from 0.

        Raises IndexError for an index outside the stack, DataError where the file can no longer be read.
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        outside = wanted[(wanted < 0) | (wanted >= self.n_images)]
        if outside.size:
            raise IndexError(f"image {outside[0]} is outside {self.path}, which has images 0 to {self.n_images - 1}")
        return read_pixels(self._header, wanted)


def read_images(
    stacks: Sequence[ImageStack], stack_number: npt.NDArray[np.int64], image_index: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Images of several stacks of one box, float32 (b, ny, nx): image `image_index` of stack `stack_number`, (b,) each.

    Raises IndexError and DataError as `ImageStack.read` does.
    """
    images = np.empty((len(stack_number), *stacks[0].box), np.float32)
    for number in np.unique(stack_number):
        places = np.flatnonzero(stack_number == number)
        images[places] = stacks[number].read(image_index[places])
    return images


def _compressed_header(path: Path) -> MrcHeader:
    try:
        with gzip.open(path) as file:
            header = checked_header(path, file.read(HEADER_BYTES), None)
        most = _MOST_GZIP * path.stat().st_size
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(path, expected="a map that gzip has compressed", found=_one_line(error)) from error
    if header.data_offset + math.prod(header.shape) * header.dtype.itemsize > most:
        raise DataError(path, expected="as many voxels as its header claims", found="fewer")
    return header


def _decompressed(header: MrcHeader) -> npt.NDArray[np.float32]:
    n_bytes = math.prod(header.shape) * header.dtype.itemsize
    try:
        with gzip.open(header.path) as file:
            file.seek(header.data_offset)
            raw = file.read(n_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(header.path, expected="a map that gzip has compressed", found=_one_line(error)) from error
    if len(raw) != n_bytes:
        found = "fewer" if len(raw) < n_bytes else "more"
        raise DataError(header.path, expected=f"{n_bytes} bytes of voxels", found=found)
    return as_pixels(header, raw)


def _one_line(error: Exception) -> str:
    told = getattr(error, "strerror", None) or str(error)
    return f"an error ({' '.join(str(told).split())})"


def _cubic_voxel_size_A(path: Path, voxel_size_A: tuple[float, float, float] | None, untold_A: float | None) -> float:
    if voxel_size_A is None:
        if untold_A is not None:
            return untold_A
        raise DataError(path, expected="a voxel size in the header", found="none", hint=_GIVE)
    if max(voxel_size_A) - min(voxel_size_A) > _VOXEL_SIZE_TOLERANCE * max(voxel_size_A):
        if untold_A is not None:
            return untold_A
        sizes = " × ".join(f"{size:.4g}" for size in voxel_size_A)
        raise DataError(path, expected="one voxel size for x, y and z", found=f"{sizes} Å", hint=_GIVE)
    return voxel_size_A[0]


def _write(
    path: str | Path,
    shape: tuple[int, int, int],
    pixel_size_A: float,
    batches: Iterable[npt.NDArray[Any]],
    *,
    is_stack: bool,
    mode: int = 2,
) -> None:
    if min(shape) < 1:
        raise ValueError(f"an MRC file needs at least one pixel along each axis, not {shape}")
    if not (math.isfinite(pixel_size_A) and pixel_size_A > 0):
        raise ValueError(f"pixel_size_A must be positive, not {pixel_size_A}")
    with atomic_output(path) as temporary, temporary.open("xb") as file:
        file.write(bytes(HEADER_BYTES))  # filled in last: its statistics are known only at the end
        statistics = _write_pixels(file, shape, batches, mode)
        file.seek(0)
        file.write(build_header(shape, pixel_size_A, is_stack=is_stack, statistics=statistics, mode=mode))


def _write_pixels(
    file: BinaryIO, shape: tuple[int, int, int], batches: Iterable[npt.NDArray[Any]], mode: int
) -> tuple[float, float, float, float]:
    """Append the pixels; return their minimum, maximum, mean and standard deviation."""
    written = 0
    smallest, largest, total, total_squared = math.inf, -math.inf, 0.0, 0.0
    for batch in batches:
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(batch, dtype=f"<{MODES[mode]}")
        if values.shape[1:] != shape[1:]:
            raise ValueError(f"a batch has shape {values.shape}, not (b, {shape[1]}, {shape[2]})")
        if not values.size:
            continue
        if not np.isfinite(values).all():
            raise ValueError("the values to write hold NaN or infinity")
        file.write(values.data)
        written += len(values)
        smallest, largest = min(smallest, float(values.min())), max(largest, float(values.max()))
        total += float(values.sum(dtype=np.float64))
        total_squared += float(np.square(values, dtype=np.float64).sum())
    if written != shape[0]:
        raise ValueError(f"{written} sections were given, not {shape[0]}")
    count = math.prod(shape)
    mean = total / count
    return smallest, largest, mean, math.sqrt(max(total_squared / count - mean**2, 0.0))
