"""``hoarfrost evaluate``: how close a map, and its poses, are to the truth."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import AsJSON, command
from hoarfrost.errors import UsageError


@command(verbs.evaluate)
def evaluate(
    map_path: Annotated[Path, Parameter(name="MAP")],
    /,
    *,
    reference: Path,
    poses: Path | None = None,
    true_poses: Path | None = None,
    symmetry: str = "C1",
    mask_diameter_A: Annotated[float | None, Parameter(name="--mask-diameter")] = None,
    pixel_size_A: Annotated[float | None, Parameter(name="--pixel-size")] = None,
    as_json: AsJSON = False,
) -> None:
    """Evaluate, and print a table or JSON."""
    if (poses is None) != (true_poses is None):
        raise UsageError("--poses and --true-poses go together: give both or neither")
    found = verbs.evaluate(
        map_path,
        reference,
        poses=poses,
        true_poses=true_poses,
        symmetry=symmetry,
        mask_diameter_A=mask_diameter_A,
        pixel_size_A=pixel_size_A,
    )
    print(json.dumps(found.to_dict(), indent=2) if as_json else "\n".join(found.lines()))
