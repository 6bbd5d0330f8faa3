"""The file of chosen particles: rows of a STAR file, or of a .cs file with every field that it has."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hoarfrost.errors import DataError
from hoarfrost.io.atomic import atomic_output
from hoarfrost.io.convert import Conversion, image_boxes, told_of_stacks, write_cs_with_group, write_particles
from hoarfrost.io.cs import read_cs
from hoarfrost.io.image_names import found_stacks, renamed
from hoarfrost.io.relion31 import with_optics_groups
from hoarfrost.io.star import StarFile
from hoarfrost.io.star_columns import Floats, Integers
from hoarfrost.io.star_optics import particle_table, told_optics
from hoarfrost.io.text_column import TextColumn
from hoarfrost.selection.cs_rows import named_from, shrunk_records
from hoarfrost.selection.shrink import Images, shrunk_tables, with_originals


@dataclass(frozen=True)
class Chosen:
    """The chosen `rows` of a file, from 0, int64 (m,); `images` and `box` where they are to be shrunk.

    `datadir` is the folder that the user named for its images.
    """

    star: StarFile
    rows: Integers
    datadir: str | Path | None
    images: Images | None = None
    box: int | None = None
    is_float16: bool = False

    def names(self) -> TextColumn:
        """The names of the chosen images."""
        return self.of_rows(particle_table(self.star).columns["rlnImageName"])

    def of_rows(self, values: Sequence[str]) -> TextColumn:
        """The values (n,) of a column that the chosen rows have."""
        return TextColumn(values[row] for row in self.rows.tolist())

    @contextlib.contextmanager
    def rows_as_in_the_file(self) -> Iterator[None]:
        """An error of a chosen row in this block names the row that it is in the file."""
        try:
            yield
        except DataError as error:
            if error.row is None or error.path != self.star.path:
                raise
            row = int(self.rows[error.row - 1]) + 1
            raise DataError(error.path, row=row, expected=error.expected, found=error.found, hint=error.hint) from None


def write_chosen(chosen: Chosen, output: Path) -> Conversion:
    """Write the chosen particles as a STAR or .cs file, by its name, and the stack of their images if they shrink.

    Raises DataError for a value that is none, with its row.
    """
    is_cs = chosen.star.path.suffix.lower() == output.suffix.lower() == ".cs"
    write = _write_records if is_cs else _write_tables
    if chosen.images is None or chosen.box is None:
        return write(chosen, output)
    stack = output.with_suffix(".mrcs")
    # The stack takes its place last: where the file cannot be written, neither is there.
    with atomic_output(stack) as temporary:
        chosen.images.write_shrunk(temporary, chosen.box, is_float16=chosen.is_float16)
        done = write(chosen, output)
    return dataclasses.replace(done, files=(*done.files, stack))


def _write_records(chosen: Chosen, output: Path) -> Conversion:
    records = read_cs(chosen.star.path).records[chosen.rows]
    notes: tuple[str, ...] = ()
    if chosen.images is not None and chosen.box is not None:
        factor = chosen.images.box / chosen.box
        records = shrunk_records(records, output.with_suffix(".mrcs"), factor, chosen.box)
    else:
        names = chosen.names()
        found = found_stacks(chosen.star.path, names, chosen.datadir)
        records, notes = named_from(records, names, found, output), tuple(told_of_stacks(found, is_star=False))
    has_poses = "alignments3D/pose" in (records.dtype.names or ())
    return Conversion(write_cs_with_group(output, records), len(records), has_poses, notes)


def _write_tables(chosen: Chosen, output: Path) -> Conversion:
    # Of all rows, so that a group has the same number in each part of the file that is chosen.
    star = with_optics_groups(chosen.star, lambda: _boxes_if_known(chosen))
    particles = particle_table(star)
    columns = {name: chosen.of_rows(values) for name, values in particles.columns.items()}
    tables = {**star.tables, particles.name: dataclasses.replace(particles, columns=columns)}
    star = StarFile(star.path, tables)
    with chosen.rows_as_in_the_file():
        found = found_stacks(star.path, columns["rlnImageName"], chosen.datadir)
        if chosen.images is not None and chosen.box is not None:
            originals = renamed(columns["rlnImageName"], found, output)
            stack = output.with_suffix(".mrcs")
            star = shrunk_tables(star, stack, chosen.images.box / chosen.box, chosen.box)
            if output.suffix.lower() == ".star":
                star = with_originals(star, originals)
            found = {stack.name: stack}
        return write_particles(star, output, found, chosen.datadir)


def _boxes_if_known(chosen: Chosen) -> Floats | None:
    """Pixels of the sides of all images of the file, None where one of its stacks is not found."""
    star = chosen.star
    found = found_stacks(star.path, particle_table(star).columns["rlnImageName"], chosen.datadir)
    optics = told_optics(star)[0]
    if optics.boxes is None and None in found.values():
        return None
    return image_boxes(star, optics, found, chosen.datadir)
