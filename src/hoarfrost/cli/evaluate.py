"""``hoarfrost evaluate``: how close a map, and its poses, are to the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hoarfrost.errors import UsageError


def evaluate(
    volume: Annotated[Path, Parameter(name="MAP")],
    /,
    *,
    reference: Path,
    poses: Path | None = None,
    true_poses: Path | None = None,
    symmetry: str = "C1",
    mask_diameter_A: Annotated[float | None, Parameter(name="--mask-diameter")] = None,
    as_json: Annotated[bool, Parameter(name="--json", show_default=False)] = False,
) -> None:
    """Compare a map with a reference: align over rotations, both hands and shifts, then print FSC and correlation.

    Parameters
    ----------
    volume
        MRC map to judge.
    reference
        MRC map to judge it by, or an atomic model (.pdb, .cif, either with .gz), of which a map is made.
    poses
        particles.star of the run, to judge its poses as well; needs --true-poses.
    true_poses
        STAR file with the poses to judge them by.
    symmetry
        Symmetry that the run imposed, like D7: poses that show such a map alike are then one. It goes with --poses.
    mask_diameter_A
        Diameter of a soft spherical mask put on both maps, in Å. None unless given.
    as_json
        Print one JSON object in place of the table.
    """
    if (poses is None) != (true_poses is None):
        raise UsageError("--poses and --true-poses go together: give both or neither")
    from hoarfrost.evaluation.evaluate import evaluate as run

    report = run(
        volume, reference, poses=poses, true_poses=true_poses, symmetry=symmetry, mask_diameter_A=mask_diameter_A
    )
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print("\n".join(report.lines()))
