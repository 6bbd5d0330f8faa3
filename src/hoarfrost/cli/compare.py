"""``hoarfrost compare``: how alike two maps are, in either hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def compare(
    first: Annotated[Path, Parameter(name="MAP")],
    second: Annotated[Path, Parameter(name="OTHER")],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    mask_diameter_A: Annotated[float | None, Parameter(name="--mask-diameter")] = None,
    as_json: Annotated[bool, Parameter(name="--json", show_default=False)] = False,
    overwrite: Annotated[bool, Parameter(show_default=False)] = False,
) -> None:
    """Compare two maps: align one to the other in each hand, then print correlations, FSC curves and resolutions.

    Use evaluate where the second is known to be right, and for poses.

    Parameters
    ----------
    first
        MRC map to align.
    second
        MRC map to align it to.
    output
        Folder to make for aligned.mrc, the first map on the second in the better hand, and fsc.png.
    mask_diameter_A
        Diameter of a soft spherical mask put on both maps, in Å. None unless given.
    as_json
        Print one JSON object in place of the table.
    overwrite
        Replace the files in the folder if they exist.
    """
    from hoarfrost.evaluation.compare import compare as run

    if output is not None:
        from hoarfrost.reporting.comparison import FILES
        from hoarfrost.reporting.folder import check_folder

        check_folder(output, FILES, overwrite=overwrite)
    found = run(first, second, mask_diameter_A=mask_diameter_A)
    print(json.dumps(found.to_dict(), indent=2) if as_json else "\n".join(found.lines()))
    if output is not None:
        from hoarfrost.reporting.comparison import write_comparison

        write_comparison(found, output)
