"""The example particles, out of the package and into a folder of the user's."""

import contextlib
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

from hoarfrost.examples.options import ExampleOptions
from hoarfrost.io.atomic import writing_to
from hoarfrost.io.folders import check_output, folder_in_place

FOLDER = "beta_galactosidase"
PARTICLES = "particles.star"
N_PARTICLES = 808


@contextlib.contextmanager
def example_particles() -> Iterator[Path]:
    """The STAR file of the example particles, where it lies for as long as the block lasts."""
    with as_file(files("hoarfrost.examples").joinpath(FOLDER)) as folder:
        yield folder / PARTICLES


def example(output: str | Path, options: ExampleOptions) -> Path:
    """The verb `hoarfrost.example`, which documents arguments and errors."""
    output = Path(output)
    # Read as resources: a package may lie in an archive.
    contents = {file.name: file for file in files("hoarfrost.examples").joinpath(FOLDER).iterdir() if file.is_file()}

    def others(folder: Path) -> list[Path]:
        return [path for path in folder.iterdir() if path.name not in contents]

    check_output(output, options.overwrite, others, command="example")
    with folder_in_place(output) as folder, writing_to(output):
        for name, file in contents.items():
            (folder / name).write_bytes(file.read_bytes())
    return output / PARTICLES
