"""``hoarfrost symmetrise``: a map averaged over a point group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def symmetrise(
    volume: Annotated[Path, Parameter(name="MAP")],
    symmetry: str,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    aligned: Annotated[bool, Parameter(show_default=False)] = False,
    max_resolution_A: Annotated[float | None, Parameter(name="--max-resolution")] = None,
    overwrite: Annotated[bool, Parameter(show_default=False)] = False,
) -> None:
    """Average a map over a point group, about the axes that are found in it, and say how well it agreed before.

    The map is moved so that its axes lie as docs/conventions.md says: the main axis of Cn and Dn along z, a two-fold
    axis of Dn along x.

    Parameters
    ----------
    volume
        MRC map to average, protein positive.
    symmetry
        Point group: Cn or Dn with any n (C4, D7), T, O or I.
    output
        MRC map to write.
    aligned
        The axes of the map lie there already: do not look for them.
    max_resolution_A
        Finest detail by which axes are placed, in Å. A twentieth of the box unless given.
    overwrite
        Replace the output if it exists.
    """
    from hoarfrost.evaluation.symmetrise import symmetrise as run

    done = run(volume, symmetry, output, aligned=aligned, max_resolution_A=max_resolution_A, overwrite=overwrite)
    print(
        f"Before, the map turned about the axes of {done.group.name} correlates with itself by {done.correlation:.2f}, "
        f"to {done.compared_to_A:.0f} Å"
    )
    if done.is_doubtful:
        print(f"That is low: the molecule may not have {done.group.name}, and a wrong group gives a wrong map")
    print(f"Wrote {done.path}")
