"""``hoarfrost convert``: particle files between RELION, cryoSPARC, FREALIGN and cisTEM."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import command
from hoarfrost.errors import UsageError
from hoarfrost.io.convert_options import ConvertOptions

FILES_HELP = (
    "The file to convert, and last the file to write: particles.cs particles.star. A .cs file may be followed by its "
    "pass-through .cs file."
)


@command(verbs.convert, ConvertOptions)
def convert(files: Annotated[list[Path], Parameter(name="FILES", help=FILES_HELP)], /, **options: Any) -> None:
    """Convert, and say what was not kept."""
    if len(files) < 2:
        raise UsageError("give the file to convert and the file to write, like particles.cs particles.star")
    done = verbs.convert(files[:-1], files[-1], **options)
    for note in done.notes:
        print(note)
    poses = "with poses" if done.has_poses else "without poses"
    print(f"Wrote {done.n:,} particles {poses} to {' and '.join(str(file) for file in done.files)}")
