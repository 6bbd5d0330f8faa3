"""Runs the command line on tiny problems, in processes of their own that tests end by signals at any moment.

Everything is loaded once; each line of stdin, like `{"arguments": ["resume", "run"], "signal": 9, "when": "map.mrc"}`
or without a signal, is done by a fork. What comes back is a line of JSON: the exit code, minus the number of the signal
that ended it, and what it wrote on stdout and stderr.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import torch
import torch._dynamo  # which the first optimiser loads

from hoarfrost.cli import main, watch
from hoarfrost.cli import reconstruct as command
from hoarfrost.reconstruction import run as verb
from hoarfrost.reconstruction import schedule
from hoarfrost.reconstruction.forecast import Forecast, Rates
from hoarfrost.reconstruction.refinement import refining
from hoarfrost.reconstruction.settings import plan as settings
from hoarfrost.reconstruction.starts import agreement, starts
from hoarfrost.reconstruction.symmetry import search as symmetry_search
from hoarfrost.reporting import run_pictures
from hoarfrost.symmetry.axes import Axes

LONGEST_WAIT_S = 30.0


def make_tiny(put: Any = setattr) -> None:
    """A few minibatches at a low band limit, then refinement in any case, in batches of a few particles."""
    put(settings, "FIRST_R_MAX", 4.0)
    put(starts, "LEAST_GAIN_TO_REFINE", -math.inf)
    put(refining, "BATCH_SIZE", 20)
    put(schedule, "MOST_SWEEPS", 2)
    put(refining, "SPOT_CHECKED", 4)
    for name in ("FIRST_STAGE", "LATER_STAGE", "REFINED_LATER_STAGE", "LAST_STAGE", "GRADIENT_STAGE"):
        put(schedule, name, schedule.StagePlan((0.3,), 2, 4, 2, 2, 4))
    # That takes two seconds, and nothing but the progress bar goes by it.
    put(verb, "measured_forecast", lambda env: Forecast.of(env.settings, Rates(), Rates()))
    # So do these; they follow from their arguments alone.
    put(agreement, "align", lambda volume, reference: SimpleNamespace(aligned=volume, correlation=0.9))
    axes = Axes(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0.9)
    put(symmetry_search, "find_axes", lambda volume, group, r_max: axes)


def lines_of(path: str) -> int:
    """How many lines a file has, and -1 if it is not there."""
    try:
        with open(path, "rb") as file:
            return file.read().count(b"\n")
    except FileNotFoundError:
        return -1


def run(
    arguments: list[str], signal: int | None = None, when: str = "", lines: int = 0, after_s: float = 0.0
) -> dict[str, Any]:
    """A run of the command line in a fork, given a signal so long after a file is there and has so many lines."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            code = main(arguments)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        if signal is not None:
            while when and lines_of(when) < lines and time.monotonic() - started < LONGEST_WAIT_S:
                time.sleep(0.002)
            time.sleep(after_s)
            os.kill(child, signal)
        _, status = os.waitpid(child, 0)
        written = []
        for file in (out, err):
            file.seek(0)
            written.append(file.read().decode())
    return {"code": os.waitstatus_to_exitcode(status), "out": written[0], "err": written[1]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_tiny()
    # Pictures take longer than all else. A run that ended before its signal gets them from the next `resume`.
    command.show_result = lambda result: None
    run_pictures.draw_missing_pictures = lambda run: None
    watch.LEAST_INTERVAL_S = math.inf  # a busy machine would draw the page of a run under way
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)
