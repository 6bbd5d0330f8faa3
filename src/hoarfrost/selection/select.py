"""A choice among the particles of a file: which, and then the file of them, with smaller images if asked."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hoarfrost.errors import DataError, UsageError
from hoarfrost.io.atomic import check_names
from hoarfrost.io.folders import check_file
from hoarfrost.io.image_names import check_datadir
from hoarfrost.io.particles_star import read_particle_tables
from hoarfrost.io.star_columns import Integers, text_column
from hoarfrost.io.star_optics import particle_table, told_optics
from hoarfrost.selection.choose import Count, choose
from hoarfrost.selection.options import SelectOptions
from hoarfrost.selection.shrink import Images
from hoarfrost.selection.write import Chosen, write_chosen

WRITTEN = (".star", ".cs")
# What says how to choose, and nothing about which.
NO_CRITERION = {"within_deg", "seed", "invert_choice", "box", "float16", "datadir", "overwrite"}


@dataclass(frozen=True)
class Selection:
    """What was chosen of the `n_before` particles of the file `source`, and the `files` that were written of it.

    `rows` are the chosen ones, from 0 and in the order of the file, int64 (n,). `counts` tells each criterion, `notes`
    are sentences for the user.
    """

    source: Path
    files: tuple[Path, ...]
    n_before: int
    rows: Integers
    counts: tuple[Count, ...]
    notes: tuple[str, ...]

    @property
    def n(self) -> int:
        """How many were chosen."""
        return len(self.rows)

    def lines(self) -> Iterator[str]:
        """How many there were, and how many each criterion left: a line each."""
        yield f"{self.n_before:,} particles in {self.source}"
        for count in self.counts:
            yield count.line()


def select(particles: str | Path, output: str | Path, options: SelectOptions) -> Selection:
    """The verb `hoarfrost.select`, which documents arguments and errors."""
    source, output = _file_of(Path(particles)), Path(output)
    _check(output, options)
    _check_outputs(output, [source], options)
    check_names(source, output)
    check_datadir(options.datadir)
    star, ignored = read_particle_tables(source)
    text_column(star.path, particle_table(star), "rlnImageName")
    rows, counts = choose(star, options)
    # Before any work, and with the rows of the file: what is wrong with a value of it.
    told_optics(star)
    images = None
    if options.box is not None:
        images = Images.open(star, rows, options.datadir)
        images.check_box(options.box)
        _check_outputs(output, [source, *(stack.path for stack in images.stacks)], options)
    done = write_chosen(Chosen(star, rows, options.datadir, images, options.box, options.float16), output)
    is_same_kind = source.suffix.lower() == output.suffix.lower()
    notes = done.notes if is_same_kind else (*ignored, *done.notes)
    return Selection(source, done.files, particle_table(star).n_rows, rows, counts, notes)


def _file_of(path: Path) -> Path:
    """The particle file that is meant: of a run's folder its particles.star."""
    if not path.is_dir():
        return path
    if not (path / "particles.star").is_file():
        hint = "give a particle file, or the folder of a run that has ended"
        raise DataError(path, expected="particles.star in the folder", found="none", hint=hint)
    return path / "particles.star"


def _check(output: Path, options: SelectOptions) -> None:
    if output.suffix.lower() not in WRITTEN:
        raise UsageError(f"select writes {' or '.join(WRITTEN)}: {output} has neither ending")
    asked = options.model_dump(exclude=NO_CRITERION, exclude_none=True)
    if not asked and (options.box is None or options.invert_choice):
        raise UsageError("nothing is asked of the particles: give a criterion such as --max-junk 0.5, or --box")
    if options.float16 and options.box is None:
        raise UsageError("--float16 is for the images that --box writes: give both")


def _check_outputs(output: Path, inputs: list[Path], options: SelectOptions) -> None:
    ends = [output.suffix, *([".csg"] if output.suffix.lower() == ".cs" else ()), *([".mrcs"] if options.box else ())]
    for end in ends:
        check_file(output.with_suffix(end), inputs, overwrite=options.overwrite)
