"""``hoarfrost symmetrise``: a map averaged over a point group."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import Output, command
from hoarfrost.evaluation.options import SymmetriseOptions


@command(verbs.symmetrise, SymmetriseOptions)
def symmetrise(
    map_path: Annotated[Path, Parameter(name="MAP")], symmetry: str, /, *, output: Output, **options: Any
) -> None:
    """Symmetrise, and say how well the map agreed with itself."""
    done = verbs.symmetrise(map_path, symmetry, output, **options)
    print(
        f"Before, the map turned about the axes of {done.group.name} correlates with itself by {done.correlation:.2f}, "
        f"to {done.compared_to_A:.0f} Å"
    )
    if done.is_doubtful:
        print(f"That is low: the molecule may not have {done.group.name}, and a wrong group gives a wrong map")
    print(f"Wrote {done.path}")
