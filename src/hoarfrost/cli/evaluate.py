"""``hoarfrost evaluate``: how close a map, and its poses, are to the truth."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import AsJSON, command
from hoarfrost.evaluation.options import EvaluateOptions


@command(verbs.evaluate, EvaluateOptions)
def evaluate(
    map_path: Annotated[Path, Parameter(name="MAP")], /, *, reference: Path, as_json: AsJSON = False, **options: Any
) -> None:
    """Evaluate, and print a table or JSON."""
    found = verbs.evaluate(map_path, reference, **options)
    print(json.dumps(found.to_dict(), indent=2) if as_json else "\n".join(found.lines()))
