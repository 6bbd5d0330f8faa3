"""Starts processes of the command line for tests of several: each is a copy of this one (fork), which has all loaded.

Each line of stdin is a task. `{"arguments": […], "environment": {…}, "out": "file", "err": "file"}` starts a process
and is answered by its id; a number waits for the process of that id and is answered by its exit code.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import team_command

from hoarfrost.cli import main
from hoarfrost.reporting import report, run_pictures

LOADED = (
    "hoarfrost.cli.app",
    "hoarfrost.cli.summary",
    "hoarfrost.parallel.join",
    "hoarfrost.reconstruction.resume",
    "hoarfrost.reconstruction.run",
    "plotly.offline",
    "torch._dynamo",  # which the first optimiser loads
)


def serve(longest_s: int) -> None:
    """Until there are no more tasks."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in iter(sys.stdin.readline, ""):
        task = json.loads(line)
        if isinstance(task, int):
            _, status = os.waitpid(task, 0)
            answer = os.waitstatus_to_exitcode(status)
        elif (answer := os.fork()) == 0:
            signal.alarm(longest_s)  # or a process that never ends would keep the tests waiting
            carry_out(task)
        print(answer, file=answers, flush=True)


def carry_out(task: dict[str, Any]) -> NoReturn:
    """In the copy, which ends at once: to put away all that is loaded takes Python longer than many a task."""
    os.environ.update(task["environment"])
    for descriptor, name in enumerate(("out", "err"), start=1):
        opened = os.open(task[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    if "NO_PICTURES" in os.environ:
        run_pictures.draw_pictures = report.report = lambda folder: None
    code = 1
    try:
        team_command.prepare()
        code = main(task["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()
    serve(int(sys.argv[1]))
