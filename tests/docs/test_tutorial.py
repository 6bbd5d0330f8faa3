"""Every command of docs/tutorial.md runs, in the order of the page, and comes to what the page says."""

from __future__ import annotations

import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hoarfrost.cli import main
from hoarfrost.evaluation.flip import inside_out
from hoarfrost.io.mrc import read_volume
from hoarfrost.io.particles_star import read_particles

ROOT = Path(__file__).parents[2]

# What is not as on the page: one or two passes over the particles, from images to no finer detail than 56 Å.
QUICK = ["--max-resolution", "56", "--threads", "1"]
SHORTENED: dict[str, list[str]] = {
    "reconstruct example/particles.star": [*QUICK, "--epochs", "2"],
    "reconstruct simulated/particles.star": [*QUICK, "--epochs", "1", "--starts", "1"],
}
# Stopped as by Ctrl-C when it has told this many times how it goes; the page goes on with it by `resume`.
STOPPED = "reconstruct example/particles.star"
EVENTS_BEFORE_STOP = 5
EXIT_EPOCHS_SPENT, EXIT_STOPPED = 4, 5

CodeBlocks = Callable[..., list[Any]]


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_the_tutorial_runs_as_it_stands(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code_blocks: CodeBlocks,
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [line for block in code_blocks("tutorial.md", "") for line in block.content.splitlines()]
    told: dict[str, str] = {}
    for command in commands:
        words = shlex.split(command)
        if words[0] != "hoarfrost":
            check_other(words)
            continue
        extra = next((options for start, options in SHORTENED.items() if command.startswith(f"hoarfrost {start}")), [])
        if command.startswith(f"hoarfrost {STOPPED}"):
            with InterruptedAfter(Path("run/events.jsonl"), EVENTS_BEFORE_STOP):
                assert main([*words[1:], *extra]) == EXIT_STOPPED
            assert not Path("run/map.mrc").exists()
            assert "hoarfrost resume run" in capsys.readouterr().err
            continue
        is_shortened = bool(extra) or words[1] == "resume"
        assert main([*words[1:], *extra]) == (EXIT_EPOCHS_SPENT if is_shortened else 0), command
        told[words[1]] = capsys.readouterr().out
    others = {"reconstruct", "report", "symmetrise", "compare", "flip", "simulate", "evaluate", "convert"}
    assert set(told) == {"example", "inspect", "resume", *others}

    # 1. What inspect is said to find.
    for fact in ("7.0727 Å", "339.5 Å", "about 187 Å, 55% of the box", "white", "beyond 17.9 Å", "specks"):
        assert fact in told["inspect"], fact
    # 2 and 3. A run that was stopped ends like any other.
    assert "Starts: " in told["resume"]  # which after two epochs need not agree
    for line in ("Map:        run/map.mrc", "Resolution: ", "Views:      "):
        assert line in told["resume"], line
    assert "uneven" in told["resume"]
    assert main(["resume", "run/"]) == EXIT_EPOCHS_SPENT
    assert "--epochs 2 ended the run" in capsys.readouterr().err
    # 4. The page has the panels that are looked at, in one file.
    page = Path("run/report.html").read_text()
    for panel in (
        "Random starts", "Particles and projections", "Map: slices and projections", "What the map explains",
        "Orientations", "Agreement of the half maps",
    ):  # fmt: skip
        assert f">{panel}</h" in page, panel
    # 5. Symmetry, likeness, hand.
    assert "about the axes of D2 correlates with itself by 0." in told["symmetrise"]
    assert "Better       the same hand" in told["compare"]
    mirrored, volume = (torch.from_numpy(read_volume(name)[0]) for name in ("other-hand.mrc", "run/map.mrc"))
    assert torch.equal(mirrored, inside_out(volume))
    before, after = (read_particles(path).rotations for path in ("run/particles.star", "other-hand.star"))
    np.testing.assert_allclose(after, np.diag([-1.0, -1.0, 1.0]) @ before, atol=1e-6)
    # The truth is found again, in one hand or the other.
    assert correlation(told["evaluate"]) > 0.8
    assert "500 particles, median error" in told["evaluate"]
    # 6. Poses arrive in cryoSPARC's file.
    poses = np.load("particles.cs")
    assert len(poses) == 808
    assert "alignments3D/pose" in poses.dtype.names
    assert Path("particles.csg").exists()


def correlation(told: str) -> float:
    """What evaluate prints of a map."""
    return next(float(line.split()[1]) for line in told.splitlines() if line.startswith("Correlation"))


def check_other(words: list[str]) -> None:
    """A command of another program: what it is given is there."""
    match words:
        case ["source", ".venv/bin/activate"]:
            assert "VENV := .venv\n" in (ROOT / "Makefile").read_text()
        case ["chimerax", script]:
            named = [word for line in Path(script).read_text().splitlines() for word in line.split()]
            maps = [word for word in named if word.endswith(".mrc")]
            assert "map.mrc" in maps
            assert all((Path(script).parent / name).exists() for name in maps)
        case _:
            pytest.fail(f"the tutorial has a command that no test knows: {shlex.join(words)}")


class InterruptedAfter:
    """Press Ctrl-C once a file has so many lines."""

    def __init__(self, file: Path, lines: int) -> None:
        self._file, self._lines, self._left = file, lines, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._left.is_set():
            if self._file.exists() and self._file.read_bytes().count(b"\n") >= self._lines:
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.02)
