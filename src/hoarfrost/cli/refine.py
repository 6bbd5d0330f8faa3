"""``hoarfrost refine``: particle images with poses, or a map, in, the final map out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hoarfrost import verbs
from hoarfrost.cli.command import Output, Quiet, command
from hoarfrost.cli.reconstruct import show_result
from hoarfrost.cli.stop import Stop
from hoarfrost.parallel.launch import is_first
from hoarfrost.reconstruction.settings.options import RefineOptions


@command(verbs.refine, RefineOptions)
def refine(particles: Path, /, *, output: Output, quiet: Quiet = False, **options: Any) -> None:
    """Refine, show how it goes, and draw what came of it."""
    from hoarfrost.cli.watch import watched

    with Stop() as stop, watched(output, quiet=quiet or not is_first(), structures=1) as progress:
        result = verbs.refine(particles, output, progress=progress, stop=stop, **options)
    show_result(result)
