"""``hoarfrost resume``: a run that was stopped goes on."""

import contextlib
import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hoarfrost import verbs
from hoarfrost.cli.command import Quiet, command
from hoarfrost.cli.reconstruct import check_trust, show_result
from hoarfrost.cli.stop import Stop
from hoarfrost.cli.terminal import optional
from hoarfrost.parallel.launch import is_first


@command(verbs.resume)
def resume(
    run: Annotated[Path, Parameter(name="RUN")],
    /,
    *,
    checkpoint_every_s: Annotated[float | None, Parameter(name="--checkpoint-every")] = None,
    quiet: Quiet = False,
) -> None:
    """Go on, and show what came of it."""
    from hoarfrost.cli.watch import watched
    from hoarfrost.errors import FinishedError

    try:
        with Stop() as stop, watched(run, quiet=quiet or not is_first()) as progress:
            result = verbs.resume(run, checkpoint_every_s=checkpoint_every_s, progress=progress, stop=stop)
    except FinishedError:
        # The process may have been killed while it drew them, before it could say what the map is worth.
        if is_first():
            with optional("its pictures"):
                from hoarfrost.reporting.run_pictures import draw_missing_pictures

                draw_missing_pictures(run)
            _check_trust(run)
        raise
    show_result(result)


def _check_trust(run: Path) -> None:
    """Raise NotConvergedError as at the end of the run, as far as its folder can be read."""
    doubts: list[str] = []
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        doubts = json.loads((run / "events.jsonl").read_text(encoding="utf-8").splitlines()[-1])["doubts"]
    check_trust(doubts)
