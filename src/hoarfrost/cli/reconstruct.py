"""``hoarfrost reconstruct``: particle images in, a map and poses out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoarfrost import verbs
from hoarfrost.cli.command import Output, Quiet, command
from hoarfrost.cli.stop import Stop
from hoarfrost.cli.terminal import optional
from hoarfrost.parallel.launch import is_first
from hoarfrost.reconstruction.settings.options import Options

if TYPE_CHECKING:
    from hoarfrost.reconstruction.result import RunResult


@command(verbs.reconstruct, Options)
def reconstruct(particles: Path, /, *, output: Output, quiet: Quiet = False, **options: Any) -> None:
    """Reconstruct, show how it goes, and draw what came of it."""
    from hoarfrost.cli.watch import watched

    structures = options.get("classes", 1)
    with Stop() as stop, watched(output, quiet=quiet or not is_first(), structures=structures) as progress:
        result = verbs.reconstruct(particles, output, progress=progress, stop=stop, **options)
    show_result(result)


def show_result(result: RunResult) -> None:
    """Draw the pictures of a run that has come to its end, and say what came of it; none of these can fail it.

    Raises NotConvergedError where something speaks against the maps.
    """
    if not is_first():
        return
    with optional("its pictures"):
        from hoarfrost.reporting.run_pictures import draw_pictures

        for of_class in result.classes:
            draw_pictures(of_class.folder)
    with optional("its page"):
        from hoarfrost.reporting.report import report

        report(result.output)
    with optional("this summary"):
        from hoarfrost.cli.summary import summary, wrapped

        for line in summary(result):
            print(wrapped(line) if sys.stdout.isatty() else line)
        sys.stdout.flush()
    check_trust(result.doubts)


def check_trust(doubts: Sequence[str]) -> None:
    """Raise NotConvergedError where something speaks against the maps of a run."""
    from hoarfrost.errors import NotConvergedError

    if doubts:
        raise NotConvergedError("; also, ".join(doubts))
