"""Particle files from one program's format to another's: STAR and .cs either way, .par and cisTEM's STAR to both.

Poses, CTF parameters and optics groups are kept; sentences tell what is not. Images are not copied: the new file names
the same stacks.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hoarfrost.errors import UsageError
from hoarfrost.io.atomic import write_text_atomically
from hoarfrost.io.cs import Records, write_cs
from hoarfrost.io.cs_particles import cs_records, group_file, read_cs_particles
from hoarfrost.io.frealign import GivenOptics, from_cistem_star, is_cistem_star, read_par
from hoarfrost.io.image_names import check_datadir, found_stacks, renamed
from hoarfrost.io.mrc import ImageStack
from hoarfrost.io.particles_star import read_poses
from hoarfrost.io.star import StarFile, read_star, write_star
from hoarfrost.io.star_columns import Floats, refuse_rows, text_column
from hoarfrost.io.star_optics import ParticleOptics, particle_table, told_optics

READ, WRITTEN = (".star", ".cs", ".par"), (".star", ".cs")


@dataclass(frozen=True)
class Conversion:
    """What was written: `n` particles to `files`, with poses or without; `notes` are sentences for the user."""

    files: tuple[Path, ...]
    n: int
    has_poses: bool
    notes: tuple[str, ...]


def convert(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    stack: str | Path | None = None,
    given: GivenOptics | None = None,
    datadir: str | Path | None = None,
    overwrite: bool = False,
) -> Conversion:
    """The verb `hoarfrost.convert`, which documents arguments and errors."""
    paths, output, given = [Path(path) for path in inputs], Path(output), given or GivenOptics()
    _check(paths, output, stack, given, overwrite)
    check_datadir(datadir)
    star, notes = _read(paths, output, None if stack is None else ImageStack(stack), given)
    names = text_column(star.path, particle_table(star), "rlnImageName")
    done = write_particles(star, output, found_stacks(star.path, names, datadir), datadir)
    return dataclasses.replace(done, notes=(*notes, *done.notes))


def write_particles(
    star: StarFile, output: Path, found: Mapping[str, Path | None], datadir: str | Path | None = None
) -> Conversion:
    """Write the particles of these tables as a STAR file, or as a .cs file with its .csg, by the name of `output`.

    `found` has the file of each stack that the tables name, None where there is none; stacks are named as they are
    found from the output. `datadir` is what a user told of them. Raises DataError for what the tables cannot hold.
    """
    particles = particle_table(star)
    optics, corrected = told_optics(star)
    poses = read_poses(star.path, particles, optics.pixel_sizes_A)
    names = renamed(text_column(star.path, particles, "rlnImageName"), found, output)
    particles = dataclasses.replace(particles, columns={**particles.columns, "rlnImageName": names})
    is_star = output.suffix.lower() == ".star"
    warnings = (f"{warning[0].upper()}{warning[1:]}" for warning in optics.warnings)
    notes = (*warnings, *told_of_stacks(found, is_star=is_star))
    files: tuple[Path, ...] = (output,)
    if is_star:
        tables = {**star.tables, particles.name: particles}
        write_star(output, tables.values())
    else:
        boxes = image_boxes(star, optics, found, datadir)
        records, lost = cs_records(star, particles, optics, boxes, poses)
        files = write_cs_with_group(output, records)
        notes = (*notes, *(f"{note[0].upper()}{note[1:]}" for note in corrected), *lost)
    return Conversion(files, particles.n_rows, poses is not None, notes)


def write_cs_with_group(output: Path, records: Records) -> tuple[Path, Path]:
    """Write a .cs file, and beside it the .csg file by which cryoSPARC imports it; both are returned."""
    group = output.with_suffix(".csg")
    write_cs(output, records)
    write_text_atomically(group, group_file(output.name, records.dtype.names or (), len(records)))
    return output, group


def _check(paths: list[Path], output: Path, stack: str | Path | None, given: GivenOptics, overwrite: bool) -> None:
    given.check()
    kinds = [path.suffix.lower() for path in paths]
    if not kinds or kinds[0] not in (*READ, ".csg") or output.suffix.lower() not in WRITTEN:
        raise UsageError(f"convert reads {', '.join(READ)} and writes {' or '.join(WRITTEN)}")
    if len(kinds) > 2 or (len(kinds) == 2 and kinds != [".cs", ".cs"]):
        raise UsageError("convert takes one file, or a .cs file and its pass-through .cs file, and then the output")
    if kinds[0] in (".cs", ".csg") and output.suffix.lower() == ".cs":
        raise UsageError("the output is a .cs file as the input is; give one that ends in .star")
    if kinds[0] == ".par" and stack is None:
        raise UsageError("a .par file does not name its images: give the stack with --stack")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; choose another name or give --overwrite")


def _read(
    paths: list[Path], output: Path, stack: ImageStack | None, given: GivenOptics
) -> tuple[StarFile, tuple[str, ...]]:
    if paths[0].suffix.lower() == ".par":
        assert stack is not None
        return read_par(paths[0], stack, given)
    star = None
    if paths[0].suffix.lower() == ".star":
        star = read_star(paths[0])
        if is_cistem_star(star):
            return from_cistem_star(star, stack, given)
    if stack is not None or given != GivenOptics():
        raise UsageError("--stack, --pixel-size, --voltage, --cs and --amplitude-contrast are for a .par file")
    if star is None:
        return read_cs_particles(*paths, is_strict=False)
    if output.suffix.lower() == ".star":
        raise UsageError("the output is a STAR file as the input is; give one that ends in .cs")
    return star, ()


def told_of_stacks(found: Mapping[str, Path | None], *, is_star: bool) -> Iterator[str]:
    """Sentences on the stacks that were not found, and on names that RELION would refuse in a STAR file."""
    missing = [name for name, path in found.items() if path is None]
    if missing:
        yield f"{len(missing)} of {len(found)} stacks were not found, and keep their names, like {missing[0]}"
    other = next((name for name in found if not name.endswith(".mrcs")), None)
    if is_star and other is not None:
        yield f"RELION takes a stack only by a name that ends in .mrcs, and {other} does not: link it under such a name"


def image_boxes(
    star: StarFile, optics: ParticleOptics, found: Mapping[str, Path | None], datadir: str | Path | None
) -> Floats:
    """Pixels of the side of each image (n,), from the file or from the headers of the stacks.

    Raises DataError with the row of an image of which neither tells.
    """
    if optics.boxes is not None:
        return optics.boxes.astype(np.float64)
    of_stacks = {name: ImageStack(path).box[1] for name, path in found.items() if path is not None}
    names = (name.partition("@")[2] for name in particle_table(star).columns["rlnImageName"])
    boxes = np.array([of_stacks.get(name, math.nan) for name in names])
    hint = "tell where the images are: --datadir" if datadir is None else None
    refuse_rows(star.path, np.isnan(boxes), "rlnImageSize, or a stack to read it from", lambda _: "neither", hint)
    return boxes
