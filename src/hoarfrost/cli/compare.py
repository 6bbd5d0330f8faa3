"""``hoarfrost compare``: how alike two maps are, in either hand."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import AsJSON, Flag, command
from hoarfrost.evaluation.options import CompareOptions

OUTPUT_HELP = "Folder to make for aligned.mrc, the first map on the second in the better hand, and fsc.png."


@command(verbs.compare, CompareOptions)
def compare(
    first: Annotated[Path, Parameter(name="MAP")],
    second: Annotated[Path, Parameter(name="OTHER")],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help=OUTPUT_HELP)] = None,
    as_json: AsJSON = False,
    overwrite: Annotated[Flag, Parameter(help="Replace the files in the folder if they exist.")] = False,
    **options: Any,
) -> None:
    """Compare, print, and write what was asked for."""
    if output is not None:
        from hoarfrost.io.folders import check_files
        from hoarfrost.reporting.comparison import FILES

        check_files(output, FILES, overwrite=overwrite)
    found = verbs.compare(first, second, **options)
    print(json.dumps(found.to_dict(), indent=2) if as_json else "\n".join(found.lines()))
    if output is not None:
        from hoarfrost.reporting.comparison import write_comparison

        write_comparison(found, output)
