"""Particles of RELION's STAR files, 3.0 to 5, or of cryoSPARC: each one's image, its optics and, if told, its pose."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hoarfrost.errors import DataError
from hoarfrost.io.columns import HALF_COLUMN
from hoarfrost.io.cs_particles import read_cs_particles, signs
from hoarfrost.io.image_names import check_datadir, find_stack, found_none, parse_image_name
from hoarfrost.io.magnification_star import evenly_magnified
from hoarfrost.io.mrc import ImageStack
from hoarfrost.io.star import StarFile, StarTable, read_star
from hoarfrost.io.star_columns import Floats, Integers, float_column, integer_column, refuse_rows, text_column
from hoarfrost.io.star_optics import ParticleOptics, particle_table, read_optics
from hoarfrost.maths.rotations import rotations_from_relion_deg

ANGLES = {"rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"}
_HEADER_DISAGREES = 0.01  # relative difference of pixel sizes worth a warning


@dataclass(frozen=True)
class ParticleTable:
    """A particle file, checked: n particles, their images and optics.

    `star` are its tables, those of RELION 3.1 that a .cs file amounts to included.

    Particle i is image `image_index[i]` (from 0) of `stacks[stack_number[i]]`; both arrays are int64 (n,). Its pixels
    are to be multiplied by `signs[i]`, 1 or −1, float64 (n,). `warnings` are plain sentences for the user.
    """

    star: StarFile
    n: int
    stacks: tuple[ImageStack, ...]
    stack_number: Integers
    image_index: Integers
    optics: ParticleOptics
    box: int
    signs: Floats
    warnings: tuple[str, ...]

    @property
    def stack_paths(self) -> tuple[Path, ...]:
        """The files of the images, each once."""
        return tuple(stack.path for stack in self.stacks)

    @property
    def pixel_size_A(self) -> float:
        """Pixel size of every image in Å."""
        return self.optics.pixel_size_A

    @cached_property
    def poses(self) -> tuple[Floats, Floats] | None:
        """The poses that the file tells, of evenly magnified images, read when they are first asked for."""
        told = read_poses(self.star.path, particle_table(self.star), self.pixel_size_A)
        return None if told is None else (told[0], evenly_magnified(told[1], self.optics.magnification))

    @property
    def has_poses(self) -> bool:
        """Whether the file has angles, sensible or not."""
        return particle_table(self.star).columns.keys() >= ANGLES

    @property
    def halves(self) -> Integers | None:
        """The half, 0 or 1, that each particle is in, int64 (n,), or None unless there are particles of both.

        Raises DataError for a half that is neither 1 nor 2.
        """
        particles = particle_table(self.star)
        if HALF_COLUMN not in particles.columns:
            return None
        halves = integer_column(self.star.path, particles, HALF_COLUMN)
        is_bad = (halves != 1) & (halves != 2)
        refuse_rows(self.star.path, is_bad, f"1 or 2 in {HALF_COLUMN}", lambda row: str(halves[row]))
        return halves - 1 if len(np.unique(halves)) == 2 else None

    @property
    def rotations(self) -> Floats | None:
        """Rotations (n, 3, 3), reference → image frame, float64, or None. Raises DataError for angles that are none."""
        return None if self.poses is None else self.poses[0]

    @property
    def shifts_A(self) -> Floats | None:
        """Shifts (n, 2), x and y by which the particle is moved, float64, or None. Raises DataError likewise."""
        return None if self.poses is None else self.poses[1]

    @cached_property
    def first_of_image(self) -> Integers:
        """The first row that names the same image, from 0, int64 (n,): the row itself where it is named once."""
        names = np.stack([self.stack_number, self.image_index], axis=1)
        _, first, place = np.unique(names, axis=0, return_index=True, return_inverse=True)
        return first[place.reshape(-1)]


def read_particles(path: str | Path, datadir: str | Path | None = None) -> ParticleTable:
    """Read a particle STAR file or a .cs file of cryoSPARC, and the headers of its stacks, and check them.

    Image files are looked for in `datadir` where it is given; otherwise in the file's folder, then in
    each folder above it (RELION and cryoSPARC name images from their project folder), then in the current folder.
    Raises DataError, with the particle's row from 1, for anything missing or wrong, and UsageError for a `datadir` that
    is not there.
    """
    check_datadir(datadir)
    star, ignored = read_particle_tables(path)
    table = particle_table(star)
    _check_names_images(star.path, table)
    optics = read_optics(star)
    stacks, stack_number, image_index = open_stacks(star.path, table, datadir)
    box = common_box(stacks)
    if optics.box not in (None, box):
        found = f"{box} pixels in {stacks[0].path.name}"
        raise DataError(star.path, expected=f"images of rlnImageSize {optics.box} pixels", found=found)
    warnings = (*ignored, *optics.warnings, *_pixel_size_warnings(stacks, optics.pixel_size_A))
    return ParticleTable(
        star, table.n_rows, stacks, stack_number, image_index, optics, box, signs(star.path, table), warnings
    )


def read_particle_tables(path: str | Path) -> tuple[StarFile, tuple[str, ...]]:
    """The tables of a STAR file, or those that a .cs file amounts to, and sentences on what of it is ignored.

    Raises DataError as `read_star` and `read_cs_particles` do, and for a FREALIGN file, which does not tell enough.
    """
    suffix = Path(path).suffix.lower()
    if suffix in (".cs", ".csg"):
        return read_cs_particles(path)
    if suffix == ".par":
        hint = f"convert it first: hoarfrost convert {path} particles.star --stack particles.mrcs"
        raise DataError(path, expected="a STAR or .cs file", found="a FREALIGN parameter file", hint=hint)
    return read_star(path), ()


def _check_names_images(path: Path, table: StarTable) -> None:
    positions = {"rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"}
    is_picking = positions <= table.columns.keys()
    hint = "these are positions in micrographs: extract the particles first" if is_picking else None
    text_column(path, table, "rlnImageName", hint)


def open_stacks(
    path: Path, table: StarTable, datadir: str | Path | None, rows: Integers | None = None
) -> tuple[tuple[ImageStack, ...], Integers, Integers]:
    """The stacks, opened, that the particles of a table of the file `path` are in; each one's stack, and its image.

    Both are int64 (n,), counted from 0. Of the `rows` (n,), from 0, where they are given. Raises DataError with the row
    of an image that is not there.
    """
    rows = np.arange(table.n_rows) if rows is None else rows
    names = text_column(path, table, "rlnImageName")
    stacks: dict[str, tuple[int, ImageStack]] = {}
    stack_number = np.empty(len(rows), np.int64)
    image_index = np.empty(len(rows), np.int64)
    for place, row in enumerate(rows.tolist()):
        number, name = parse_image_name(path, row, names[row])
        if name not in stacks:
            stacks[name] = (len(stacks), ImageStack(_existing_stack(path, row, name, datadir)))
        position, stack = stacks[name]
        if number > stack.n_images:
            expected = f"an image of 1 to {stack.n_images} in {name}"
            raise DataError(path, row=row + 1, expected=expected, found=f"image {number}")
        stack_number[place], image_index[place] = position, number - 1
    return tuple(stack for _, stack in stacks.values()), stack_number, image_index


def _existing_stack(star_path: Path, row: int, name: str, datadir: str | Path | None) -> Path:
    stack = find_stack(name, star_path, datadir=datadir)
    if stack is None:
        found, hint = found_none(name, star_path, datadir)
        raise DataError(star_path, row=row + 1, expected=f"the image file {name}", found=found, hint=hint)
    return stack


def common_box(stacks: Sequence[ImageStack]) -> int:
    """The side of the images of all stacks, in pixels. Raises DataError where they are not square, or differ."""
    for stack in stacks:
        rows, columns = stack.box
        if rows != columns:
            raise DataError(stack.path, expected="square images", found=f"{columns} × {rows} pixels")
        if stack.box != stacks[0].box:
            expected = f"images of {stacks[0].box[0]} pixels as in {stacks[0].path.name}"
            raise DataError(
                stack.path, expected=expected, found=f"{rows} pixels", hint="all particles need one box size"
            )
    return stacks[0].box[0]


def read_rotations(path: Path, table: StarTable) -> Floats | None:
    """The rotations of the particles of a table, as in ParticleTable, or None; no image is looked for.

    Raises DataError, naming the file `path`, for an angle that is no number.
    """
    if not table.columns.keys() >= ANGLES:  # psi alone comes from particle picking
        return None
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    return rotations_from_relion_deg(np.stack([float_column(path, table, name) for name in names], axis=1))


def read_poses(path: Path, table: StarTable, pixel_sizes_A: float | Floats) -> tuple[Floats, Floats] | None:
    """Rotations (n, 3, 3) and shifts in Å (n, 2) as in ParticleTable, or None where the table has no angles.

    Raises DataError with the row of a value that is not a number.
    """
    rotations = read_rotations(path, table)
    if rotations is None:
        return None
    return rotations, -np.stack([_origin_A(path, table, axis, pixel_sizes_A) for axis in "XY"], axis=1)


def _origin_A(path: Path, table: StarTable, axis: str, pixel_sizes_A: float | Floats) -> npt.NDArray[np.float64]:
    """RELION's origin in Å: told so from 3.1 on, in pixels before, 0 where it is not told."""
    if f"rlnOrigin{axis}Angst" in table.columns:
        return float_column(path, table, f"rlnOrigin{axis}Angst")
    return float_column(path, table, f"rlnOrigin{axis}", default=0.0) * pixel_sizes_A


def _pixel_size_warnings(stacks: tuple[ImageStack, ...], pixel_size_A: float) -> Iterator[str]:
    for stack in stacks:
        told = stack.pixel_size_A
        # Many programs write 1 Å for "not known".
        if told is None or told == 1.0 or abs(told - pixel_size_A) <= _HEADER_DISAGREES * pixel_size_A:
            continue
        yield (
            f"{stack.path.name} has a pixel size of {told:.4g} Å in its header; "
            f"the STAR file's {pixel_size_A:.4g} Å is used"
        )
        return  # one example is enough
