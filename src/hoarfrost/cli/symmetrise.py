"""``hoarfrost symmetrise``: a map averaged over a point group."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import Flag, Output, command


@command(verbs.symmetrise)
def symmetrise(
    map_path: Annotated[Path, Parameter(name="MAP")],
    symmetry: str,
    /,
    *,
    output: Output,
    aligned: Flag = False,
    max_resolution_A: Annotated[float | None, Parameter(name="--max-resolution")] = None,
    pixel_size_A: Annotated[float | None, Parameter(name="--pixel-size")] = None,
    overwrite: Flag = False,
) -> None:
    """Symmetrise, and say how well the map agreed with itself."""
    done = verbs.symmetrise(
        map_path,
        symmetry,
        output,
        aligned=aligned,
        max_resolution_A=max_resolution_A,
        pixel_size_A=pixel_size_A,
        overwrite=overwrite,
    )
    print(
        f"Before, the map turned about the axes of {done.group.name} correlates with itself by {done.correlation:.2f}, "
        f"to {done.compared_to_A:.0f} Å"
    )
    if done.is_doubtful:
        print(f"That is low: the molecule may not have {done.group.name}, and a wrong group gives a wrong map")
    print(f"Wrote {done.path}")
