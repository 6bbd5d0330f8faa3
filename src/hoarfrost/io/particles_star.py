"""Particles of RELION's STAR files, 3.0 to 5, or of cryoSPARC: each one's image, its optics and, if told, its pose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hoarfrost.errors import DataError
from hoarfrost.io.cs_particles import read_cs_particles
from hoarfrost.io.image_names import find_stack, parse_image_name
from hoarfrost.io.mrc import ImageStack
from hoarfrost.io.star import StarFile, StarTable, read_star
from hoarfrost.io.star_columns import Floats, Integers, float_column, text_column
from hoarfrost.io.star_optics import ParticleOptics, particle_table, read_optics
from hoarfrost.maths.rotations import rotations_from_relion_deg

_HEADER_DISAGREES = 0.01  # relative difference of pixel sizes worth a warning


@dataclass(frozen=True)
class ParticleTable:
    """A particle file, checked: n particles, their images and optics, their poses where it tells them.

    `star` are its tables, those of RELION 3.1 that a .cs file amounts to included.

    Particle i is image `image_index[i]` (from 0) of `stacks[stack_number[i]]`; both arrays are int64 (n,).
    `rotations` is (n, 3, 3), reference → image frame, and `shifts_A` (n, 2), x and y by which the particle is
    moved, float64; both are None where the file has no angles. `warnings` are plain sentences for the user.
    """

    star: StarFile
    n: int
    stacks: tuple[ImageStack, ...]
    stack_number: Integers
    image_index: Integers
    optics: ParticleOptics
    box: int
    rotations: Floats | None
    shifts_A: Floats | None
    warnings: tuple[str, ...]

    @property
    def stack_paths(self) -> tuple[Path, ...]:
        """The files of the images, each once."""
        return tuple(stack.path for stack in self.stacks)

    @property
    def pixel_size_A(self) -> float:
        """Pixel size of every image in Å."""
        return self.optics.pixel_size_A


def read_particles(path: str | Path, datadir: str | Path | None = None) -> ParticleTable:
    """Read a particle STAR file or a .cs file of cryoSPARC, and the headers of its stacks, and check them.

    Image files are looked for in `datadir` where it is given; otherwise in the file's folder, then in
    each folder above it (RELION and cryoSPARC name images from their project folder), then in the current folder.
    Raises DataError, with the particle's row from 1, for anything missing or wrong.
    """
    star, ignored = read_particle_tables(path)
    table = particle_table(star)
    optics = read_optics(star)
    stacks, stack_number, image_index = _images(star, table, datadir)
    box = _common_box(star, optics, stacks)
    poses = read_poses(star.path, table, optics.pixel_size_A)
    rotations, shifts_A = (None, None) if poses is None else poses
    warnings = (*ignored, *optics.warnings, *_pixel_size_warnings(stacks, optics.pixel_size_A))
    return ParticleTable(
        star, table.n_rows, stacks, stack_number, image_index, optics, box, rotations, shifts_A, warnings
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


def _images(
    star: StarFile, table: StarTable, datadir: str | Path | None
) -> tuple[tuple[ImageStack, ...], Integers, Integers]:
    """Each particle's stack, opened, and its image in it."""
    stacks: dict[str, tuple[int, ImageStack]] = {}
    stack_number = np.empty(table.n_rows, np.int64)
    image_index = np.empty(table.n_rows, np.int64)
    for row, image_name in enumerate(text_column(star.path, table, "rlnImageName")):
        number, name = parse_image_name(star.path, row, image_name)
        if name not in stacks:
            stacks[name] = (len(stacks), ImageStack(_existing_stack(star.path, row, name, datadir)))
        position, stack = stacks[name]
        if number > stack.n_images:
            expected = f"an image of 1 to {stack.n_images} in {name}"
            raise DataError(star.path, row=row + 1, expected=expected, found=f"image {number}")
        stack_number[row], image_index[row] = position, number - 1
    return tuple(stack for _, stack in stacks.values()), stack_number, image_index


def _existing_stack(star_path: Path, row: int, name: str, datadir: str | Path | None) -> Path:
    found = find_stack(name, star_path.parent, datadir=datadir)
    if found is None:
        places = datadir or f"{star_path.parent}, the folders above it or the current folder"
        hint = "give the folder of the images as the data directory"
        raise DataError(star_path, row=row + 1, expected=f"the image file {name}", found=f"none in {places}", hint=hint)
    return found


def _common_box(star: StarFile, optics: ParticleOptics, stacks: tuple[ImageStack, ...]) -> int:
    for stack in stacks:
        rows, columns = stack.box
        if rows != columns:
            raise DataError(stack.path, expected="square images", found=f"{columns} × {rows} pixels")
        if stack.box != stacks[0].box:
            expected = f"images of {stacks[0].box[0]} pixels as in {stacks[0].path.name}"
            raise DataError(
                stack.path, expected=expected, found=f"{rows} pixels", hint="all particles need one box size"
            )
    box = stacks[0].box[0]
    if optics.box not in (None, box):
        found = f"{box} pixels in {stacks[0].path.name}"
        raise DataError(star.path, expected=f"images of rlnImageSize {optics.box} pixels", found=found)
    return box


def read_rotations(path: Path, table: StarTable) -> Floats | None:
    """The rotations of the particles of a table, as in ParticleTable, or None; no image is looked for.

    Raises DataError, naming the file `path`, for an angle that is no number.
    """
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    if not all(name in table.columns for name in names):  # psi alone comes from particle picking
        return None
    return rotations_from_relion_deg(np.stack([float_column(path, table, name) for name in names], axis=1))


def read_poses(path: Path, table: StarTable, pixel_size_A: float) -> tuple[Floats, Floats] | None:
    """Rotations (n, 3, 3) and shifts in Å (n, 2) as in ParticleTable, or None where the table has no angles.

    Raises DataError with the row of a value that is not a number.
    """
    rotations = read_rotations(path, table)
    if rotations is None:
        return None
    return rotations, -np.stack([_origin_A(path, table, axis, pixel_size_A) for axis in "XY"], axis=1)


def _origin_A(path: Path, table: StarTable, axis: str, pixel_size_A: float) -> npt.NDArray[np.float64]:
    """RELION's origin in Å: told so from 3.1 on, in pixels before, 0 where it is not told."""
    if f"rlnOrigin{axis}Angst" in table.columns:
        return float_column(path, table, f"rlnOrigin{axis}Angst")
    return float_column(path, table, f"rlnOrigin{axis}", default=0.0) * pixel_size_A


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
