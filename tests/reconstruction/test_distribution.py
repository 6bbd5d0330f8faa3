"""Several processes give what one gives, end together, and tell a failure once."""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hoarfrost
from hoarfrost.errors import UsageError
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.io.star import read_star
from hoarfrost.parallel.launch import Place, find_place
from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.estimate.folds import FOLDS
from hoarfrost.simulation.phantom import make_phantom

SOURCES = Path(__file__).parents[2] / "src" / "hoarfrost"
COMMAND = Path(__file__).with_name("team_command.py")
HOST = Path(__file__).with_name("team_host.py")
BOX, PIXEL_A, N = 32, 8.0, 160
SHARED = ["--shift-sigma", "8", "--shift-extent", "16", "--seed", "3", "--threads", "1", "--starts", "1"]
# Sums over all poses at r_max 4, then refinement to r_max 5.6.
REFINED = [*SHARED, "--max-resolution", "46"]
# What is tested is that there is an end, however slow the machine.
LONGEST_S = 300


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("particles")
    write_volume(folder / "phantom.mrc", make_phantom(BOX, seed=2, n_blobs=4).numpy(), PIXEL_A)
    data = hoarfrost.simulate(
        folder / "phantom.mrc", folder / "data", n_particles=N, snr=2.0, shift_sigma_A=8.0, seed=1
    )
    return Path(data.particles_path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **extra}


def start_with_torchrun(arguments: list[str], **extra: str) -> subprocess.Popen[str]:
    """A run of two processes under torchrun."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    return subprocess.Popen(
        [sys.executable, *launcher, str(COMMAND), "reconstruct", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**extra),
    )


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def told(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("hoarfrost: error: ")]


def wait(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=LONGEST_S)
    return Ended(process.returncode, out, err)


class Host:
    """Starts processes of the command line, each a copy of one that has all loaded: see team_host.py."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._started = folder, 0
        # What copies do is not measured, so it need not be slow.
        own = {name: value for name, value in environment().items() if not name.startswith("COV")}
        self._process = subprocess.Popen(
            [sys.executable, str(HOST), str(LONGEST_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=own,
        )

    def _answer(self, task: dict[str, Any] | int) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(task), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def start(self, arguments: list[str], variables: dict[str, str]) -> Copy:
        self._started += 1
        out, err = (self._folder / f"{self._started}.{name}" for name in ("out", "err"))
        task = {"arguments": arguments, "environment": variables, "out": str(out), "err": str(err)}
        return Copy(self, self._answer(task), out, err)

    def wait(self, pid: int) -> int:
        return self._answer(pid)

    def close(self) -> None:
        self._process.communicate(timeout=LONGEST_S)
        assert self._process.returncode == 0


@dataclass
class Copy:
    """A process that a host has started."""

    host: Host
    pid: int
    out: Path
    err: Path
    ended: Ended | None = None

    def wait(self) -> Ended:
        if self.ended is None:
            code = self.host.wait(self.pid)
            self.ended = Ended(code, self.out.read_text(), self.err.read_text())
        return self.ended


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("host"))
    yield host
    host.close()


class Crew:
    """n processes of one run without torchrun, whose exit codes can be seen; killed at the end if they still run."""

    def __init__(self, host: Host, arguments: list[list[str]], **extra: str) -> None:
        n = len(arguments)
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(n)}
        places = [{**place, "RANK": str(r), "LOCAL_RANK": str(r), "LOCAL_WORLD_SIZE": str(n)} for r in range(n)]
        self.processes = [host.start(words, {**places[rank], **extra}) for rank, words in enumerate(arguments)]

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.ended is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()

    def wait(self) -> list[Ended]:
        return [process.wait() for process in self.processes]


def wait_for_halt(folder: Path, n: int) -> list[int]:
    """Process ids by rank, once all are in mid-run."""
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        files = [folder / str(rank) for rank in range(n)]
        if all(file.exists() and file.read_text() for file in files):
            return [int(file.read_text()) for file in files]
        time.sleep(0.05)
    pytest.fail("the processes never came to their first iteration")


@dataclass(frozen=True)
class Outcome:
    ended: Ended
    events: list[dict[str, Any]]
    output: Path


def outcome_of(ended: Ended, output: Path) -> Outcome:
    assert ended.code == 0, ended.err
    lines = (output / "events.jsonl").read_text().splitlines()
    return Outcome(ended, [json.loads(line) for line in lines], output)


def run(host: Host, n: int, arguments: list[str], output: Path, **extra: str) -> Outcome:
    """A run of n processes without torchrun, with what all of them said."""
    words = [*arguments, "-o", str(output)]
    with Crew(host, [["reconstruct", *words]] * n, **extra) as crew:
        ended = crew.wait()
    code = max((end.code for end in ended), key=abs)
    return outcome_of(Ended(code, "".join(end.out for end in ended), "".join(end.err for end in ended)), output)


@pytest.fixture(scope="module")
def outcomes(host: Host, particles: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Outcome]:
    folder = tmp_path_factory.mktemp("outcomes")
    arguments = [str(particles), *REFINED]
    two = wait(start_with_torchrun([*arguments, "-o", str(folder / "2")]))
    return {
        1: run(host, 1, arguments, folder / "1"),
        2: outcome_of(two, folder / "2"),
        4: run(host, 4, arguments, folder / "4"),
    }


def iterations(outcome: Outcome, *, stage: int | None = None) -> list[dict[str, Any]]:
    return [e for e in outcome.events if e["batch_nll"] is not None and (stage is None or e["stage"] == stage)]


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4])
def test_the_sums_over_all_poses_do_not_depend_on_the_number_of_processes(outcomes: dict[int, Outcome], n: int) -> None:
    alone, shared = (iterations(outcomes[number], stage=0) for number in (1, n))
    assert len(alone) == len(shared) == 4
    for one, many in zip(alone, shared, strict=True):
        assert many["image_gradients"] == one["image_gradients"]
        assert many["batch_nll"] == pytest.approx(one["batch_nll"], rel=1e-5)
        assert many["ess"] == pytest.approx(one["ess"], rel=1e-2)
        if one["nll"] is not None:
            assert many["nll"] == pytest.approx(one["nll"], rel=1e-5)
            assert many["nll_gain"] == pytest.approx(one["nll_gain"], abs=1e-5 * one["nll"])


def first_pass_nll(outcome: Outcome) -> tuple[float, int]:
    """Mean NLL of the first sweep through the first half, and the images in it."""
    first = next(stage for stage in sorted({e["stage"] for e in iterations(outcome)}) if stage > 0)
    sweep = iterations(outcome, stage=first)
    before = iterations(outcome, stage=0)[-1]["image_gradients"]
    steps = np.diff([before, *(event["image_gradients"] for event in sweep)])
    # The halves of a sweep are of one size to within a few images, in batches of a process's 100 each.
    taken = list(itertools.takewhile(lambda done: done <= steps.sum() / 4 + 8, np.cumsum(steps)))
    n = len(taken)
    nll = np.array([event["batch_nll"] for event in sweep[:n]])
    return float((nll * steps[:n]).sum() / steps[:n].sum()), int(steps[:n].sum())


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4])
def test_refinement_begins_with_the_same_posteriors(outcomes: dict[int, Outcome], n: int) -> None:
    (alone, images), (shared, same) = first_pass_nll(outcomes[1]), first_pass_nll(outcomes[n])
    assert images == same
    assert shared == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4])
def test_the_first_sweeps_agree_before_rounding_has_grown(outcomes: dict[int, Outcome], n: int) -> None:
    first = next(stage for stage in sorted({e["stage"] for e in iterations(outcomes[1])}) if stage > 0)
    one, many = (np.array([e["batch_nll"] for e in iterations(outcomes[k], stage=first)]) for k in (1, n))
    of_a_sweep = 2 * FOLDS  # a batch a fold
    relative = np.abs(many / one - 1)
    assert relative[:of_a_sweep].max() < 1e-4
    assert relative[of_a_sweep : 2 * of_a_sweep].max() < 5e-4


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4])
def test_the_refined_maps_and_poses_agree(outcomes: dict[int, Outcome], n: int) -> None:
    one, many = outcomes[1], outcomes[n]
    assert many.events[-1]["image_gradients"] == one.events[-1]["image_gradients"]
    last = [[e["nll"] for e in outcome.events if e["nll"] is not None][-1] for outcome in (one, many)]
    # A climb takes a step or not, and maps of 48 images are far from still: what rounding begins as 1e-6 grows tenfold
    # from sweep to sweep.
    assert last[1] == pytest.approx(last[0], rel=1e-2)
    for name in ("map.mrc", "half1.mrc", "half2.mrc"):
        volumes = [read_volume(outcome.output / name)[0] for outcome in (one, many)]
        # So does its share of the map: one in 48, where all but the noise of that image stays.
        assert np.linalg.norm(volumes[1] - volumes[0]) < 0.1 * np.linalg.norm(volumes[0])
    columns = [read_star(o.output / "particles.star").tables["particles"].columns for o in (one, many)]
    evidence = np.array([c["rlnLogLikeliContribution"] for c in columns], dtype=float)
    angles = np.array([c["rlnAngleTilt"] for c in columns], dtype=float)
    assert len(evidence[0]) == N
    assert abs(np.diff(evidence.mean(axis=1)).item()) < 1e-2 * abs(evidence.mean())
    assert np.mean(np.abs(angles[1] - angles[0]) < 3) > 0.95


@pytest.mark.slow
def test_two_processes_find_the_same_contrast(
    host: Host, outcomes: dict[int, Outcome], particles: Path, tmp_path: Path
) -> None:
    dark = tmp_path / "dark" / particles.name
    shutil.copytree(particles.parent, dark.parent)
    stack = dark.with_suffix(".mrcs")
    stack.write_bytes(stack.read_bytes()[:1024] + (-np.fromfile(stack, "<f4", offset=1024)).tobytes())
    inverted = run(host, 2, [str(dark), *REFINED], tmp_path / "run", NO_PICTURES="yes")
    for outcome, times in ((outcomes[2], 0), (inverted, 1)):
        assert (outcome.ended.out + outcome.ended.err).count("images are inverted") == times
    assert (inverted.output / "map.mrc").read_bytes() == (outcomes[2].output / "map.mrc").read_bytes()


@pytest.mark.slow
def test_only_the_first_process_prints_and_writes(outcomes: dict[int, Outcome]) -> None:
    for outcome in outcomes.values():
        assert outcome.ended.out.count("Map:  ") == 1
        assert outcome.ended.err.count("The first map is") == 1
        numbers = [event["iteration"] for event in iterations(outcome)]
        assert numbers == list(range(1, len(numbers) + 1))
    names = [sorted(entry.name for entry in outcome.output.iterdir()) for outcome in outcomes.values()]
    assert names[0] == names[1] == names[2]


@pytest.mark.slow
def test_classes_do_not_depend_on_the_number_of_processes(host: Host, particles: Path, tmp_path: Path) -> None:
    arguments = [str(particles), *REFINED, "--classes", "2"]
    alone, shared = (run(host, n, arguments, tmp_path / str(n)) for n in (1, 2))
    for one, two in zip(iterations(alone, stage=0), iterations(shared, stage=0), strict=True):
        assert two["batch_nll"] == pytest.approx(one["batch_nll"], rel=1e-5)
    assert sorted(p.name for p in shared.output.iterdir()) == sorted(p.name for p in alone.output.iterdir())


@pytest.mark.slow
# The first searches for its rate; the other takes several gradients a step, at points that its own decisions lead to.
@pytest.mark.parametrize(("method", "compared"), [("adam", 4), ("hf", 2)])
def test_gradient_methods_do_not_depend_on_the_number_of_processes(
    host: Host, particles: Path, tmp_path: Path, method: str, compared: int
) -> None:
    arguments = [str(particles), *SHARED, "--max-resolution", "64", "--method", method]
    alone, shared = (iterations(run(host, n, arguments, tmp_path / str(n), NO_PICTURES="yes")) for n in (1, 2))
    for one, two in zip(alone[:compared], shared[:compared], strict=True):
        assert two["step"] == pytest.approx(one["step"], rel=1e-5)
        # Hessian-free takes differences of gradients, in which half of the digits are lost.
        assert two["batch_nll"] == pytest.approx(one["batch_nll"], rel=1e-3 if method == "hf" else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_ends_the_others_with_one_line(particles: Path, tmp_path: Path, lost: int) -> None:
    process = start_with_torchrun([str(particles), *REFINED, "-o", str(tmp_path / "run"), "-q"], HALT_IN=str(tmp_path))
    pids = wait_for_halt(tmp_path, 2)
    os.kill(pids[lost], signal.SIGKILL)
    (tmp_path / "go on").touch()
    ended = wait(process)
    assert ended.code != 0
    (line,) = ended.told
    assert f"number {lost} (pid {pids[lost]})" in line
    assert "go on with hoarfrost resume" in line
    assert "Traceback" not in ended.err.partition("torch/distributed")[0]
    assert not (tmp_path / "run" / "map.mrc").exists()


@pytest.mark.slow
@pytest.mark.parametrize("silent", [0, 1])
def test_a_process_that_no_longer_answers_ends_the_others(
    host: Host, particles: Path, tmp_path: Path, silent: int
) -> None:
    arguments = ["reconstruct", str(particles), *REFINED, "-o", str(tmp_path / "run"), "-q"]
    with Crew(host, [arguments] * 2, HALT_IN=str(tmp_path), HOARFROST_TIMEOUT_S="3") as crew:
        pids = wait_for_halt(tmp_path, 2)
        os.kill(pids[silent], signal.SIGSTOP)
        (tmp_path / "go on").touch()
        ended = crew.processes[1 - silent].wait()
    assert ended.code == 1
    (line,) = ended.told
    assert "has kept it waiting for 3 s" in line
    assert ended.err.count("\n") == 1


@pytest.mark.slow
def test_processes_stop_together_and_go_on_to_the_same_bytes(
    host: Host, outcomes: dict[int, Outcome], particles: Path, tmp_path: Path
) -> None:
    arguments = ["reconstruct", str(particles), *REFINED, "-o", str(tmp_path / "run"), "-q", "--checkpoint-every", "0"]
    with Crew(host, [arguments] * 2, HALT_IN=str(tmp_path), REFINING="yes") as crew:
        wait_for_halt(tmp_path, 2)
        # In its second process only.
        os.kill(crew.processes[1].pid, signal.SIGTERM)
        (tmp_path / "go on").touch()
        ended = crew.wait()
    assert [end.code for end in ended] == [5, 5]
    told = [line for end in ended for line in end.err.splitlines()]
    command = f"torchrun --nproc-per-node 2 -m hoarfrost resume {tmp_path / 'run'}"
    assert told == [f"hoarfrost: Stopped. Go on with: {command}"]
    (_, newest) = sorted((tmp_path / "run" / "checkpoints").glob("*.json"))
    march = json.loads(newest.read_text())["state"]["phase"]
    assert (march["kind"], march["sweep"]["kind"]) == ("March", "Sweep")
    assert march["sweep"]["n_done"] > 0
    with Crew(host, [["resume", str(tmp_path / "run")]] * 2, NO_PICTURES="yes") as crew:
        ended = crew.wait()
    assert [end.code for end in ended] == [0, 0], ended
    folders = tmp_path / "run", outcomes[2].output
    for name in ("map.mrc", "half1.mrc", "half2.mrc", "fsc.star"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    found, expected = (read_star(folder / "particles.star").tables["particles"].columns for folder in folders)
    assert {**found, "rlnImageName": expected["rlnImageName"]} == expected


@pytest.mark.slow
def test_a_mistake_of_the_user_is_told_once(host: Host, particles: Path, tmp_path: Path) -> None:
    shutil.copytree(particles.parent, tmp_path / "cut")
    cut = tmp_path / "cut" / particles.name
    cut.write_text(cut.read_text()[:-40])
    new, old = tmp_path / "run", tmp_path / "old"
    old.mkdir()
    (old / "map.mrc").write_bytes(b"precious")
    cases: list[tuple[list[list[str]], int, str]] = [
        ([[str(cut), *REFINED, "-o", str(new)]] * 2, 3, str(cut)),
        ([[str(particles), *REFINED, "-o", str(old)]] * 2, 2, "old exists"),
        ([[str(particles), *REFINED, "--batch-size", "3", "-o", str(new)]] * 2, 2, "2 processes are too many"),
        ([[str(particles), "--no-such-option", "-o", str(new)]] * 2, 2, "--no-such-option"),
        ([[str(particles), *REFINED, "-o", str(new), *more] for more in ([], ["--epochs", "2"])], 2, "process 1 on"),
    ]
    for arguments, code, complaint in cases:
        with Crew(host, [["reconstruct", *words] for words in arguments]) as crew:
            ended = crew.wait()
        assert [end.code for end in ended] == [code, code], [end.err for end in ended]
        (line,) = ended[0].told + ended[1].told
        assert complaint in line
        assert "".join(end.out + end.err for end in ended).count("\n") == 1
    assert [entry.name for entry in old.iterdir()] == ["map.mrc"]
    assert not new.exists()


@pytest.mark.slow
def test_torchrun_shows_a_mistake_once_and_its_exit_code(particles: Path, tmp_path: Path) -> None:
    ended = wait(start_with_torchrun([str(tmp_path / "none.star"), *REFINED, "-o", str(tmp_path / "run")]))
    assert ended.code != 0
    (line,) = ended.told
    assert "none.star" in line
    assert re.search(r"exitcode\s*: 3", ended.err)


@pytest.mark.slow
def test_a_failure_of_the_first_process_alone_ends_all(host: Host, particles: Path, tmp_path: Path) -> None:
    arguments = ["reconstruct", str(particles), *REFINED, "-o", str(tmp_path / "run"), "-q"]
    with Crew(host, [arguments] * 2, FULL_DISK="yes") as crew:
        ended = crew.wait()
    assert [end.code for end in ended] == [2, 1]
    assert ended[0].told == ["hoarfrost: error: cannot write events.jsonl: No space left on device"]
    assert ended[1].err == ""


@pytest.fixture
def two_hosts() -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Two network namespaces with a cable between them: the name and address of each."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("two hosts are imitated by network namespaces, which takes root and the program ip")
    tag = f"hf{os.getpid() % 100000}"
    names = (f"{tag}a", f"{tag}b")
    addresses = ("10.231.77.1", "10.231.77.2")
    made: list[list[str]] = [["netns", "add", name] for name in names]
    made.append(["link", "add", names[0], "netns", names[0], "type", "veth", "peer", names[1], "netns", names[1]])
    for name, address in zip(names, addresses, strict=True):
        made += [
            ["-n", name, "addr", "add", f"{address}/30", "dev", name],
            ["-n", name, "link", "set", name, "up"],
            ["-n", name, "link", "set", "lo", "up"],
        ]
    try:
        for words in made:
            done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"network namespaces cannot be made here: ip {' '.join(words)}: {done.stderr.strip()}")
        yield (names[0], addresses[0]), (names[1], addresses[1])
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@pytest.mark.slow
def test_two_hosts_give_what_one_gives(
    two_hosts: tuple[tuple[str, str], tuple[str, str]],
    outcomes: dict[int, Outcome],
    particles: Path,
    tmp_path: Path,
) -> None:
    arguments = [str(particles), *REFINED]
    launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
    launcher += ["--rdzv-endpoint", f"{two_hosts[0][1]}:29400", "--rdzv-id", "test"]
    command = [str(COMMAND), "reconstruct", *arguments, "-o", str(tmp_path / "two")]
    hosts = []
    for number, (name, address) in enumerate(two_hosts):
        # Hosts with a name of their own find out by themselves which of them the endpoint is.
        own = ["--local-addr", address, "--rdzv-conf", f"is_host={1 - number}"]
        hosts.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, *launcher, *own, *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(GLOO_SOCKET_IFNAME=name),
            )
        )
    ended = [wait(host) for host in hosts]
    assert [end.code for end in ended] == [0, 0], [end.err for end in ended]
    assert sum("Map:  " in end.out for end in ended) == 1
    two = [json.loads(line) for line in (tmp_path / "two" / "events.jsonl").read_text().splitlines()]
    # Refinement adds up so much that last bits grow.
    first = ([event for event in events if event["stage"] == 0] for events in (outcomes[1].events, two))
    for alone, shared in zip(*first, strict=True):
        if alone["batch_nll"] is not None:
            assert shared["batch_nll"] == pytest.approx(alone["batch_nll"], rel=1e-5)
        if alone["nll"] is not None:
            assert shared["nll"] == pytest.approx(alone["nll"], rel=1e-5)


@pytest.mark.parametrize(("n", "size"), [(10, 3), (4, 4), (7, 1), (101, 8)])
def test_shares_are_even_and_cover_all_rows_in_order(n: int, size: int) -> None:
    shares = []
    for rank in range(size):
        team = Team()
        team.rank, team.size = rank, size
        shares.append(team.share(torch.arange(n)))
    assert torch.equal(torch.cat(shares), torch.arange(n))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_the_place_comes_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert find_place() == Place(0, 1, 0, 1)
    monkeypatch.setenv("RANK", "5")
    assert find_place() == Place(0, 1, 0, 1)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert find_place() == Place(5, 8, 0, 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert find_place() == Place(5, 8, 1, 4)
    for name, value in (("RANK", "8"), ("LOCAL_RANK", "4"), ("WORLD_SIZE", "many")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(UsageError, match="start with torchrun"):
                find_place()


def test_torch_distributed_has_one_home() -> None:
    homes = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            if any(name.startswith("torch.distributed") for name in names):
                homes.add(path.relative_to(SOURCES).as_posix())
            assert not (isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.distributed"))
    assert homes == {"parallel/join.py", "parallel/processes.py"}
