"""The command line for tests of several processes: few iterations at a low band limit, then refinement in any case."""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path

from hoarfrost.cli import main
from hoarfrost.errors import UsageError
from hoarfrost.reconstruction import forecast, schedule
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.refinement import fold_pass
from hoarfrost.reconstruction.settings import plan as settings
from hoarfrost.reconstruction.starts import annealing, starts
from hoarfrost.reconstruction.watch.events import Event, EventLog

settings.FIRST_R_MAX = 4.0
# Refinement follows the first stage: in a longer one rounding comes to decide when conjugate gradients stop, and runs
# of other numbers of processes part for good (docs/distributed.md).
schedule.SEARCH_R_MAX = 4.0
schedule.FIRST_STAGE = schedule.StagePlan((0.3,), 2, 4, 2, 2, 4)
schedule.GRADIENT_STAGE = schedule.StagePlan((1.0,), 2, 4, 2, 2, 4)
starts.LEAST_GAIN_TO_REFINE = -math.inf
# Four minibatches are too few to cool down in, and poses that are all alike still are where rounding puts them.
annealing.FIRST_NATS, annealing.LEAST_FIRST = math.inf, 1.0
# Nobody asks how long a run takes.
forecast.MOST_REPEATS = 1


def prepare() -> None:
    """Change this process as its environment says."""
    # Tells where it is at its first iteration, or that of refinement, and lets it wait there, so that a test can end it
    # in mid-run.
    folder = os.environ.get("HALT_IN")
    if folder is not None:
        home, name = (Env, "judge") if "REFINING" not in os.environ else (fold_pass, "_weights")
        then = getattr(home, name)

        def halted(*arguments: object) -> object:
            (Path(folder) / os.environ["RANK"]).write_text(str(os.getpid()))
            while not (Path(folder) / "go on").exists():
                time.sleep(0.02)
            return then(*arguments)

        setattr(home, name, halted)

    if os.environ.get("FULL_DISK") is not None:

        def refuse(self: EventLog, event: Event) -> None:
            raise UsageError("cannot write events.jsonl: No space left on device")

        EventLog.write = refuse  # type: ignore[method-assign]


if __name__ == "__main__":
    prepare()
    sys.exit(main(sys.argv[1:]))
