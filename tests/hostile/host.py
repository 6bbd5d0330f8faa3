"""A process with hoarfrost loaded, which starts each command that it is told of in a copy of itself (fork).

Tasks come as JSON, one a line, on stdin; for each, a line of JSON with the exit code and the traceback, if there was
one, goes to stdout. What the command says goes to files. Matplotlib is not loaded here: it reads its environment then.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import hoarfrost
from hoarfrost.cli import main
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.parallel import threads
from hoarfrost.reconstruction import forecast
from hoarfrost.study import speed

LONGEST_S = 100
LOADED = (
    "hoarfrost.cli.app",
    "hoarfrost.evaluation.compare",
    "hoarfrost.evaluation.evaluate",
    "hoarfrost.evaluation.symmetrise",
    "hoarfrost.examples.example",
    "hoarfrost.inspection.inspect",
    "hoarfrost.io.convert",
    "hoarfrost.selection.select",
    "hoarfrost.simulation.simulate",
    "hoarfrost.study.benchmark",
    "narwhals.stable.v1",
    "plotly.basedatatypes",
    "plotly.graph_objects",
    "plotly.offline",
    "PIL.PngImagePlugin",
    "pyparsing",
)
TINY = speed.Size(
    image_box=16,
    r_max=2.3,
    n_images=100,
    shifts=PosePrior(1.0, 1.5),
    batch=6,
    batch_with_shifts=3,
    large_batch=9,
    repeats=1,
)


def prepare(particles: Path, run: Path) -> None:
    """The run that commands share, and in making it all that is slow to load."""
    for module in LOADED:
        importlib.import_module(module)
    hoarfrost.reconstruct(particles, run, epochs=0.3, starts=1, max_resolution_A=60, threads=1)
    assert "matplotlib" not in sys.modules


def carry_out(task: dict[str, Any]) -> int:
    """In the copy: the command's exit code, or 120 as Python's where its output cannot be had at the end."""
    signal.alarm(LONGEST_S)
    threads._workers.cache_clear()  # of which the copy has none
    os.chdir(task["folder"])
    os.environ.clear()
    os.environ.update(task["environment"])
    tempfile.tempdir = None  # forget what was found before
    for descriptor, name in enumerate(("stdout", "stderr"), start=1):
        _direct(descriptor, name, task[name], task["encoding"])
    if task["largest_file"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["largest_file"], resource.RLIM_INFINITY))
    try:
        code = main(task["arguments"])
        sys.stdout.flush()
    except OSError:
        return 120
    return code


def _direct(descriptor: int, name: str, where: str, encoding: str) -> None:
    if where == "closed":
        os.close(descriptor)
        setattr(sys, name, None)
        return
    if where == "a terminal that has gone":
        terminal, opened = os.openpty()
        os.close(terminal)
    else:
        opened = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(opened, descriptor)
    os.close(opened)
    errors = "strict" if name == "stdout" else "backslashreplace"
    setattr(sys, name, open(descriptor, "w", encoding=encoding, errors=errors, closefd=False))  # noqa: SIM115


def serve() -> None:
    """Until there are no more tasks."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    answers.write("ready\n")
    answers.flush()
    tasks = os.fdopen(os.dup(0), encoding="utf-8")
    for line in tasks:
        task = json.loads(line)
        if (child := os.fork()) == 0:
            crash = Path(task["crash"])
            try:
                os._exit(carry_out(task))
            except BaseException:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                crash.write_text(traceback.format_exc(), encoding="utf-8")
                os._exit(1)
        _, status = os.waitpid(child, 0)
        answers.write(json.dumps(os.waitstatus_to_exitcode(status)) + "\n")
        answers.flush()


if __name__ == "__main__":
    vars(speed)["PUBLISHED"] = TINY
    vars(forecast)["MOST_REPEATS"] = 1  # nobody asks how long a run takes
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
    gc.freeze()
    serve()
