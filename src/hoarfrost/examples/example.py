"""The example particles, out of the package and into a folder of the user's."""

from importlib.resources import files
from pathlib import Path

from hoarfrost.examples.options import ExampleOptions
from hoarfrost.io.atomic import writing_to
from hoarfrost.io.folders import check_output, folder_in_place

FOLDER = "beta_galactosidase"
PARTICLES = "particles.star"
N_PARTICLES = 808


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
