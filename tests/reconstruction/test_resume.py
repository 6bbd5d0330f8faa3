"""A run that was stopped or killed, wherever that was, ends with the bytes of one that was not."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import hoarfrost
from hoarfrost.cli import main
from hoarfrost.cli import stop as stop_module
from hoarfrost.cli.stop import Stop
from hoarfrost.errors import DataError, FinishedError, HoarfrostError, StoppedError, UsageError
from hoarfrost.io import atomic
from hoarfrost.io.mrc import write_volume
from hoarfrost.reconstruction.result import RunResult
from hoarfrost.reconstruction.state import store
from hoarfrost.reconstruction.symmetry import search as symmetry_search
from hoarfrost.reconstruction.watch.events import EventLog
from hoarfrost.simulation.phantom import make_phantom

HOST = Path(__file__).with_name("resume_host.py")
BOX, PIXEL_A, N = 24, 8.0, 60
OPTIONS: dict[str, Any] = {
    "seed": 3,
    "starts": 1,
    "batch_size": 20,
    "held_out": 10,
    "threads": 1,
    "shift_sigma_A": 8.0,
    "shift_extent_A": 16.0,
    "max_resolution_A": BOX * PIXEL_A / 5.6,
}
KILLS = 5


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        runpy.run_path(str(HOST))["make_tiny"](patch.setattr)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("particles")
    write_volume(folder / "phantom.mrc", make_phantom(BOX, seed=2, n_blobs=4).numpy(), PIXEL_A)
    data = hoarfrost.simulate(
        folder / "phantom.mrc", folder / "data", n_particles=N, snr=2.0, shift_sigma_A=8.0, seed=1
    )
    return Path(data.particles_path)


def copied(star: Path, folder: Path) -> Path:
    """The particles in a folder `data`, so that runs beside it name their images alike."""
    shutil.copytree(star.parent, folder / "data")
    return folder / "data" / star.name


@pytest.fixture
def particles(simulated: Path, tmp_path: Path) -> Path:
    return copied(simulated, tmp_path)


def results(output: Path) -> dict[str, bytes]:
    """The files of a run that has finished, but for those with times in them and the name of the folder."""
    paths = [path for path in sorted(output.rglob("*")) if path.is_file()]
    return {str(p.relative_to(output)): p.read_bytes() for p in paths if p.name not in ("events.jsonl", "config.toml")}


def events(output: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (output / "events.jsonl").read_text().splitlines()]
    assert [event["seconds"] for event in found] == sorted(event["seconds"] for event in found)
    return [{key: value for key, value in event.items() if key != "seconds"} for event in found]


def after(n: int) -> Callable[[], bool]:
    """Stops a run at the offer after `n`."""
    asked = itertools.count()
    return lambda: next(asked) >= n


Stopped = Callable[[Callable[[], bool]], RunResult]


def stopped_again_and_again(begin: Stopped, output: Path, every: int) -> RunResult:
    """What a run comes to that is stopped after so many offers, and gone on with until it ends."""
    for n_stops in itertools.count():
        stop = after(every)
        try:
            result = hoarfrost.resume(output, stop=stop) if n_stops else begin(stop)
            break
        except StoppedError:
            assert n_stops < 100
    assert n_stops >= 2
    found: RunResult = result
    return found


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The phases that checkpoints were written in, as "March" and "March/Sweep", and the numbers of stages.

    Tensors of checkpoints were as they will be read back.
    """
    names: set[str] = set()
    without_tensors, write = store._without_tensors, store.CheckpointFolder.write

    def checked(value: Any, path: str, tensors: Any) -> Any:
        # In another order it would be added up in another.
        assert not hasattr(value, "is_contiguous") or value.is_contiguous(), path
        return without_tensors(value, path, tensors)

    def note(value: Any, within: str = "") -> None:
        if isinstance(value, dict):
            kind = value.get("kind", within)
            names.update({kind, f"{within}/{kind}"})
            if kind == "Stage":
                names.add(f"Stage {value['number']}")
            for entry in value.values():
                note(entry, kind)
        elif isinstance(value, list):
            for entry in value:
                note(entry, within)

    def noted(self: store.CheckpointFolder, facts: dict[str, Any], state: store.State) -> None:
        note(state)
        write(self, facts, state)

    monkeypatch.setattr(store, "_without_tensors", checked)
    monkeypatch.setattr(store.CheckpointFolder, "write", noted)
    return names


# Stops come after so many offers each: in the end in every phase of the run.
@pytest.mark.parametrize(
    ("options", "every", "expected_phases"),
    [
        (
            {"starts": 3},
            6,
            ["Starts/Stage", "Starts/StartMaps", "Starts/StartsResult", "March", "March/Sweep", "FinalPasses/FoldPass"],
        ),
        ({"classes": 2}, 6, ["Starts/Stage", "March/Sweep", "FinalPasses/FoldPass", "FinalPasses/Solved"]),
        (
            {"symmetry": "auto"},
            6,
            ["ImposeSymmetry/March", "ImposeSymmetry/GroupSearch", "Run/March", "March/Sweep", "FinalPasses/FoldPass"],
        ),
        (
            {"symmetry": "C2", "max_resolution_A": BOX * PIXEL_A / 4.0, "rotate_grid": True},
            2,
            ["Starts/Stage", "Run/ImposeSymmetry", "ImposeSymmetry/Stage", "FinalPasses/FoldPass"],
        ),
        ({"method": "adam", "symmetry": "C2"}, 4, ["Stage 0", "Stage 1", "Stage/GradientMethod", "FinalPasses"]),
    ],
    ids=["several starts", "classes", "symmetry found", "no refinement", "gradients"],
)
def test_a_run_that_stops_again_and_again_ends_with_the_same_bytes(
    particles: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    phases: set[str],
    options: dict[str, Any],
    every: int,
    expected_phases: list[str],
) -> None:
    monkeypatch.setattr(symmetry_search, "CYCLIC", {2: (), 3: ()})
    options = {**OPTIONS, **options}
    expected = hoarfrost.reconstruct(particles, tmp_path / "whole", **options)
    phases.clear()
    found = stopped_again_and_again(
        lambda stop: hoarfrost.reconstruct(particles, tmp_path / "parts", stop=stop, **options),
        tmp_path / "parts",
        every,
    )
    assert phases >= {*expected_phases}
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    assert events(tmp_path / "parts") == events(tmp_path / "whole")
    configs = [(tmp_path / name / "config.toml").read_text() for name in ("parts", "whole")]
    assert configs[0].replace("/parts", "/whole") == configs[1]
    assert found.starts == expected.starts
    assert found.converged == expected.converged
    assert found.resolution_A == expected.resolution_A
    assert not (tmp_path / "parts" / "checkpoints").exists()


@pytest.fixture(scope="module")
def whole(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing has interrupted. Not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    hoarfrost.reconstruct(copied(simulated, folder), folder / "run", **OPTIONS)
    return folder / "run"


@pytest.fixture
def stopped(particles: Path, tmp_path: Path) -> Path:
    """The folder of a run that was stopped in the first sweep of refinement, after two checkpoints."""
    with pytest.raises(StoppedError) as told:
        hoarfrost.reconstruct(particles, tmp_path / "run", stop=after(19), **OPTIONS)
    assert told.value.exit_code == 5
    assert str(told.value) == f"Stopped. Go on with: hoarfrost resume {tmp_path / 'run'}"
    assert len([*(tmp_path / "run" / "checkpoints").glob("*.sha256")]) == 2
    return tmp_path / "run"


def told(output: Path, **options: Any) -> list[str]:
    """What the user is told by a run that goes on, to its end."""
    messages: list[str] = []
    hoarfrost.resume(output, progress=lambda event: messages.append(event.message or ""), **options)
    return [message for message in messages if message]


def test_a_damaged_checkpoint_costs_an_interval_and_is_told(stopped: Path, whole: Path) -> None:
    newest = max((stopped / "checkpoints").glob("*.safetensors"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    first, second, *_ = told(stopped)
    assert f"{newest.with_suffix('.sha256')} is damaged" in first
    assert "the run begins again" in second  # the older one was written at the very beginning
    assert results(stopped) == results(whole)
    assert events(stopped) == events(whole)


def test_what_the_folder_holds_beside_the_checkpoint_does_not_matter(stopped: Path, whole: Path) -> None:
    """Neither events after it, nor what processes that were killed have left of their files."""
    with (stopped / "events.jsonl").open("a") as file:
        file.write('{"iteration": 999, "seco')
    (stopped / ".map.mrc.0123abcd.tmp").write_bytes(b"half")
    (stopped / "checkpoints" / ".000009.json.0123abcd.tmp").write_bytes(b"half")
    (stopped / "checkpoints" / "000009.safetensors").write_bytes(b"without its sums")
    (line, *_) = told(stopped)
    assert line.startswith("Going on from the checkpoint after iteration")
    assert results(stopped) == results(whole)
    assert events(stopped) == events(whole)


def test_a_run_can_be_resumed_from_any_folder(
    particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    monkeypatch.chdir(particles.parent)
    with pytest.raises(StoppedError):
        hoarfrost.reconstruct(particles.name, os.path.relpath(tmp_path / "run"), stop=after(3), **OPTIONS)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").rename(tmp_path / "moved")
    hoarfrost.resume("moved")
    assert results(tmp_path / "moved") == results(whole)


def refused(stopped: Path, kind: type[HoarfrostError], *words: str) -> None:
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(kind) as refusal:
        hoarfrost.resume(stopped)
    line = str(refusal.value)
    assert "\n" not in line
    for word in words:
        assert word in line, line
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_a_run_whose_data_or_settings_changed_is_refused_with_the_difference(stopped: Path) -> None:
    star = stopped.parent / "data" / "particles.star"
    text = star.read_text()
    star.write_text(text + "\n")
    refused(stopped, DataError, f"{star}: expected SHA-256 ", ", found SHA-256 ", "bring them back")
    star.write_text(text)

    stack = star.with_suffix(".mrcs")
    times = stack.stat().st_atime_ns, stack.stat().st_mtime_ns
    os.utime(stack, ns=(times[0], times[1] + 1_000_000))
    refused(stopped, DataError, f"{stack}: expected ", " bytes last changed ")
    os.utime(stack, ns=times)

    config = stopped / "config.toml"
    settings = config.read_text()
    config.write_text(settings.replace("seed = 3", "seed = 4").replace("held_out = 10", "held_out = 11"))
    refused(
        stopped, UsageError, "config.toml has changed", "seed: expected 3, found 4", "held_out: expected 10, found 11"
    )
    config.write_text(settings.replace("seed = 3", 'seed = "many"'))
    refused(stopped, UsageError, "config.toml is not as a run wrote it", "seed")
    config.write_text(settings.replace("processes = 1", "processes = 2"))
    refused(stopped, UsageError, "began with 2 processes, found 1", "torchrun --nproc-per-node 2 -m hoarfrost resume")
    config.write_text(settings.replace(f'"{hoarfrost.__version__}"', '"0.0.9"'))
    refused(stopped, UsageError, f"began with hoarfrost 0.0.9, found {hoarfrost.__version__}")
    config.unlink()
    refused(stopped, UsageError, "holds no run")


def test_a_run_that_another_process_works_on_is_left_alone(stopped: Path) -> None:
    log = EventLog(stopped / "events.jsonl", 10**9)
    refused(stopped, UsageError, "another process is writing", "still going on")
    log.close()


def test_a_run_that_has_finished_says_so(
    whole: Path, particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FinishedError, match=f"The run in {whole} has finished"):
        hoarfrost.resume(whole)
    # Killed as it drew the pictures: that they are not there says nothing of the run.
    shutil.copytree(whole, tmp_path / "run")
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert (
        capsys.readouterr().err
        == f"hoarfrost: The run in {tmp_path / 'run'} has finished; there is nothing to go on with\n"
    )
    assert (tmp_path / "run" / "orientations.png").exists()
    with pytest.raises(UsageError, match=r"give --overwrite$"):
        hoarfrost.reconstruct(particles, whole)


def test_a_finished_run_has_finished_whatever_programs_began_it(whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    text = (run / "config.toml").read_text()
    text = re.sub(r'(?m)^torch_version = ".*"$', 'torch_version = "1.0"', text)
    (run / "config.toml").write_text(re.sub(r'(?m)^version = ".*"$', 'version = "0.0.9"', text))
    with pytest.raises(FinishedError, match="has finished"):
        hoarfrost.resume(run)


def test_settings_of_another_version_name_the_one_that_can_go_on(stopped: Path) -> None:
    config = stopped / "config.toml"
    text = re.sub(r'(?m)^version = ".*"$', 'version = "0.0.9"', config.read_text())
    config.write_text(text.replace("batch_size = ", "size_of_batches = "))
    refused(stopped, UsageError, "hoarfrost 0.0.9 wrote it: install that to go on with the run")


def test_a_run_in_the_way_of_another_can_be_gone_on_with_or_replaced(
    stopped: Path, particles: Path, whole: Path
) -> None:
    with pytest.raises(UsageError, match=f"--overwrite, or go on with the run in it: hoarfrost resume {stopped}"):
        hoarfrost.reconstruct(particles, stopped, **OPTIONS)
    (stopped / "checkpoints" / "mine.txt").touch()
    with pytest.raises(UsageError, match=r"holds checkpoints/mine.txt"):
        hoarfrost.reconstruct(particles, stopped, overwrite=True, **OPTIONS)
    (stopped / "checkpoints" / "mine.txt").unlink()
    (stopped / ".map.mrc.0123abcd.tmp").touch()
    hoarfrost.reconstruct(particles, stopped, overwrite=True, **OPTIONS)
    assert results(stopped) == results(whole)


def test_a_full_disk_at_the_end_is_told_with_what_to_do_and_costs_nothing(
    stopped: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if target.name == "half2.mrc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", full)
        with pytest.raises(UsageError, match=r"half2\.mrc: No space left on device; .* go on with: hoarfrost resume"):
            hoarfrost.resume(stopped)
    (line, *_) = told(stopped)
    assert line.startswith("Going on from the checkpoint")
    assert results(stopped) == results(whole)


def test_a_disk_that_takes_no_checkpoints_is_told_once_and_the_run_ends_as_it_would(
    particles: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if "checkpoints" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", failing)
    messages: list[str] = []
    hoarfrost.reconstruct(
        particles,
        tmp_path / "run",
        checkpoint_every_s=0,
        progress=lambda event: messages.append(event.message or ""),
        **OPTIONS,
    )
    (line,) = [message for message in messages if "No checkpoint could be written" in message]
    assert "No space left on device" in line
    assert results(tmp_path / "run") == results(whole)


def test_a_run_that_stops_before_it_began_leaves_no_folder(particles: Path, tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match="before the work began"):
        hoarfrost.reconstruct(particles, tmp_path / "run", stop=lambda: True, **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_the_second_signal_ends_the_run_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        assert stop()
        # A launcher passes on what the terminal has sent already.
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(stop_module, "SAME_REQUEST_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert capfd.readouterr().err.strip() == "Stopping as soon as there is a checkpoint; once more to stop at once"


class Host:
    """Runs the command line in processes that can be killed: see resume_host.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HOST)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __call__(self, *arguments: str, **how: float | str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"arguments": arguments, **how}), file=self._process.stdin, flush=True)
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


def words(particles: Path, output: Path) -> list[str]:
    names = {"max_resolution_A": "max-resolution", "shift_sigma_A": "shift-sigma", "shift_extent_A": "shift-extent"}
    options = {f"--{names.get(name, name.replace('_', '-'))}": str(value) for name, value in OPTIONS.items()}
    pairs = itertools.chain.from_iterable(options.items())
    return ["reconstruct", str(particles), "-o", str(output), *pairs, "--checkpoint-every", "0"]


def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(
    host: Host, particles: Path, tmp_path: Path, whole: Path
) -> None:
    chance = random.Random(int(os.environ.get("HOARFROST_KILLS_SEED", "0")))
    output, n_events = tmp_path / "run", len(events(whole))
    command = words(particles, output)
    for k in range(KILLS):
        # How far a run has come is told by its events, however fast the machine.
        come_to = int(n_events * chance.uniform(k, k + 1) / (KILLS + 1))
        moment = {"when": str(output / "events.jsonl"), "lines": come_to, "after_s": chance.uniform(0, 0.02)}
        done = host(*command, signal=signal.SIGKILL, **moment)
        assert done["code"] == -signal.SIGKILL, done["err"]
        # Without its settings a run has not begun.
        begun = (output / "config.toml").exists()
        command = ["resume", str(output)] if begun else [*words(particles, output), "--overwrite"]
    last = host(*command)
    assert last["code"] == 0, last["err"]
    assert results(output) == results(whole)
    assert events(output) == events(whole)


def test_sigterm_leaves_a_checkpoint_and_tells_the_command(
    host: Host, particles: Path, tmp_path: Path, whole: Path
) -> None:
    output = tmp_path / "run"
    third = output / "checkpoints" / "000002.sha256"
    done = host(*words(particles, output), "-q", signal=signal.SIGTERM, when=str(third))
    assert done["code"] == 5, done["err"]
    assert done["out"] == ""
    stopping, line = done["err"].strip().splitlines()
    assert "once more to stop at once" in stopping
    assert line == f"hoarfrost: Stopped. Go on with: hoarfrost resume {output}"
    done = host("resume", str(output))
    assert done["code"] == 0, done["err"]
    assert "Going on from the checkpoint" in done["err"]
    assert results(output) == results(whole)
