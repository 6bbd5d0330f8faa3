"""Images shrunk by Fourier cropping, as a stack of their own, and the lengths in pixels that change with them."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hoarfrost.errors import DataError, UsageError
from hoarfrost.io.mrc import ImageStack, read_images, write_stack
from hoarfrost.io.particles_star import common_box, open_stacks
from hoarfrost.io.relion31 import IN_PIXELS
from hoarfrost.io.star import StarFile, StarTable
from hoarfrost.io.star_columns import Floats, Integers, float_column, refuse_rows
from hoarfrost.io.star_optics import particle_table, told_optics
from hoarfrost.io.text_column import TextColumn
from hoarfrost.maths.fourier import fourier_crop_images

PIXELS_PER_BATCH = 1 << 23
MOST_FLOAT16 = 65504.0
ORIGINAL = "rlnImageOriginalName"


@dataclass(frozen=True)
class Images:
    """The images of chosen `rows` of the file `path`, of one `box` in pixels; none is read yet.

    Row i has image `image_index[i]` of `stacks[stack_number[i]]`, int64 (m,) all three, counted from 0.
    `pixel_size_A` is that of the first.
    """

    path: Path
    rows: Integers
    stacks: tuple[ImageStack, ...]
    stack_number: Integers
    image_index: Integers
    box: int
    pixel_size_A: float

    @classmethod
    def open(cls, star: StarFile, rows: Integers, datadir: str | Path | None) -> "Images":
        """Open the stacks. Raises DataError for an image that is not there, another box, or no pixel size."""
        stacks, stack_number, image_index = open_stacks(star.path, particle_table(star), datadir, rows)
        box, optics = common_box(stacks), told_optics(star)[0]
        sizes_A, boxes = optics.pixel_sizes_A, optics.boxes
        is_chosen = np.isin(np.arange(len(sizes_A)), rows)
        expected = "a pixel size, such as rlnImagePixelSize"
        refuse_rows(star.path, np.isnan(sizes_A) & is_chosen, expected, lambda _: "none")
        if boxes is not None:
            expected = f"rlnImageSize {box}, as in {stacks[0].path.name}"
            refuse_rows(star.path, (boxes != box) & is_chosen, expected, lambda row: f"{boxes[row]}")
        return cls(star.path, rows, stacks, stack_number, image_index, box, float(sizes_A[rows[0]]))

    def check_box(self, box: int) -> None:
        """Raise UsageError for a box larger than that of the images."""
        if box > self.box:
            most = self.box - self.box % 2
            raise UsageError(f"--box {box} is larger than the images, of {self.box} pixels; give at most {most}")

    def write_shrunk(self, output: Path, box: int, *, is_float16: bool) -> None:
        """Write them all with `box` pixels as the stack `output`.

        Raises DataError with the row of an image that holds NaN, infinity, or more than 16-bit floats can hold.
        """
        pixel_size_A = self.pixel_size_A * self.box / box
        batches = self._shrunk(box, MOST_FLOAT16 if is_float16 else np.inf)
        write_stack(output, len(self.rows), (box, box), pixel_size_A, batches, is_float16=is_float16)

    def _shrunk(self, box: int, most: float) -> Iterator[npt.NDArray[np.float32]]:
        step = max(1, PIXELS_PER_BATCH // self.box**2)
        for start in range(0, len(self.rows), step):
            part = slice(start, start + step)
            images = read_images(self.stacks, self.stack_number[part], self.image_index[part])
            shrunk = fourier_crop_images(torch.from_numpy(images), box).numpy()
            largest = np.abs(shrunk).max(axis=(1, 2))
            bad = np.flatnonzero(~(np.isfinite(largest) & (largest <= most)))
            if bad.size:
                self._refuse(start + int(bad[0]), float(largest[bad[0]]))
            yield shrunk

    def _refuse(self, place: int, largest: float) -> None:
        stack, number = self.stacks[self.stack_number[place]], self.image_index[place] + 1
        expected, found, hint = "finite pixel values", "NaN or infinity", "leave this particle out"
        if np.isfinite(largest):
            expected, found = f"values up to {MOST_FLOAT16:g} for --float16", f"{largest:g}"
            hint = "leave out --float16"
        found = f"{found} in image {number} of {stack.path}"
        raise DataError(self.path, row=int(self.rows[place]) + 1, expected=expected, found=found, hint=hint)


def shrunk_tables(star: StarFile, stack: Path, factor: float, box: int) -> StarFile:
    """The tables of RELION 3.1 of particles whose images are now those of `stack`, of pixels `factor` times as large.

    Lengths in Å stay. Raises DataError with the row of a value that is no number.
    """
    particles = particle_table(star)
    columns = dict(particles.columns)
    columns["rlnImageName"] = TextColumn(f"{number:06d}@{stack.name}" for number in range(1, particles.n_rows + 1))
    for name in IN_PIXELS.keys() & columns.keys():
        columns[name] = _numbers(float_column(star.path, particles, name) / factor)
    both = {**star.tables["optics"].columns, **columns}.keys()
    lengths: list[str] = [name for name in ("rlnImagePixelSize", "rlnPixelSize") if name in both]
    # The detector's pixels tell the image's where nothing else does.
    lengths = lengths or ["rlnDetectorPixelSize"]
    optics = _resized(star.path, star.tables["optics"], lengths, factor, box)
    if "rlnImageSize" not in both:
        optics = dataclasses.replace(optics, columns={**optics.columns, "rlnImageSize": [f"{box}"] * optics.n_rows})
    moved = dataclasses.replace(particles, columns=columns)
    tables = {"optics": optics, particles.name: _resized(star.path, moved, lengths, factor, box)}
    return StarFile(star.path, {**star.tables, **tables})


def with_originals(star: StarFile, names: TextColumn) -> StarFile:
    """The tables with the `names` (n,) that images had before in rlnImageOriginalName, unless older ones are there."""
    particles = particle_table(star)
    columns = {**particles.columns, ORIGINAL: particles.columns.get(ORIGINAL, names)}
    return StarFile(star.path, {**star.tables, particles.name: dataclasses.replace(particles, columns=columns)})


def _resized(path: Path, table: StarTable, lengths: Sequence[str], factor: float, box: int) -> StarTable:
    """A table with the new size of images, and of their pixels in the columns `lengths`, where it has these."""
    columns = dict(table.columns)
    # A group that no chosen particle is in may be of another box.
    factors: float | Floats = factor
    if "rlnImageSize" in columns:
        factors = float_column(path, table, "rlnImageSize") / box
    for name in columns.keys() & lengths:
        columns[name] = _numbers(float_column(path, table, name) * factors)
    for name in columns.keys() & {"rlnImageSize", "rlnImageSizeX", "rlnImageSizeY"}:
        columns[name] = [f"{box}"] * table.n_rows
    return dataclasses.replace(table, columns=columns)


def _numbers(values: Floats) -> TextColumn:
    return TextColumn(f"{value + 0.0:.9g}" for value in values.tolist())
