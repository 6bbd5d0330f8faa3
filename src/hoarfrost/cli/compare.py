"""``hoarfrost compare``: how alike two maps are, in either hand."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import AsJSON, Flag, command

OUTPUT_HELP = "Folder to make for aligned.mrc, the first map on the second in the better hand, and fsc.png."


@command(verbs.compare)
def compare(
    first: Annotated[Path, Parameter(name="MAP")],
    second: Annotated[Path, Parameter(name="OTHER")],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help=OUTPUT_HELP)] = None,
    mask_diameter_A: Annotated[float | None, Parameter(name="--mask-diameter")] = None,
    pixel_size_A: Annotated[float | None, Parameter(name="--pixel-size")] = None,
    as_json: AsJSON = False,
    overwrite: Annotated[Flag, Parameter(help="Replace the files in the folder if they exist.")] = False,
) -> None:
    """Compare, print, and write what was asked for."""
    if output is not None:
        from hoarfrost.io.folders import check_files
        from hoarfrost.reporting.comparison import FILES

        check_files(output, FILES, overwrite=overwrite)
    found = verbs.compare(first, second, mask_diameter_A=mask_diameter_A, pixel_size_A=pixel_size_A)
    print(json.dumps(found.to_dict(), indent=2) if as_json else "\n".join(found.lines()))
    if output is not None:
        from hoarfrost.reporting.comparison import write_comparison

        write_comparison(found, output)
