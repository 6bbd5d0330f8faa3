"""Checkpoints come back bit for bit, or not at all: their files, and the parts of a run that they hold."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hoarfrost.errors import StoppedError, UsageError
from hoarfrost.io import atomic
from hoarfrost.maths.seeds import named_generator
from hoarfrost.optim.registry import METHODS, Facts
from hoarfrost.particles.sampling import FixedMinibatchSampler, MinibatchSampler
from hoarfrost.reconstruction.state import checkpoints as checkpoint
from hoarfrost.reconstruction.state.checkpoints import Checkpoints, State
from hoarfrost.reconstruction.state.store import CheckpointFolder

FACTS = {"settings": {"seed": 3, "epochs": None}, "events_bytes": 17}


def a_state(n: int = 0) -> State:
    generator = named_generator(n, "state")
    columns = torch.randn(3, 5, dtype=torch.float64, generator=generator)
    return {
        "": {"iteration": n, "gain": -math.inf, "rate": 0.1 + 0.2, "name": "D7", "best": None, "converged": True},
        "/start 0": {
            "volumes": torch.randn(2, 4, 4, 4, generator=generator),
            "generator": generator.get_state(),
            "rows sharing memory": list(columns.unbind()),
            "transposed": columns.T,
            "integers": torch.arange(5, dtype=torch.int32),
            "nothing": torch.empty(0, 12),
            "pairs": [(torch.tensor(1.5), torch.tensor([True, False]))],
            "of parameters": {0: {"step": torch.tensor(7.0)}},
        },
    }


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert [*found] == [str(key) for key in expected]
        for key, value in expected.items():
            assert_same(found[str(key)], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert type(found) is type(expected)
        assert found == expected


def newest_iteration(folder: CheckpointFolder) -> int | None:
    last, _ = folder.newest()
    return None if last is None else int(last.state[""]["iteration"])


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    """With two checkpoints."""
    folder = CheckpointFolder(tmp_path)
    for n in range(2):
        folder.write(FACTS, a_state(n))
    return folder


def test_a_state_comes_back_to_the_last_bit(folder: CheckpointFolder) -> None:
    last, complaints = folder.newest()
    assert last is not None
    assert complaints == []
    assert last.facts == FACTS
    assert_same(last.state, a_state(1))
    # Sums are done in another order where memory begins elsewhere.
    assert last.state["/start 0"]["volumes"].data_ptr() % 64 == 0


def test_the_two_newest_are_kept_and_can_be_checked_without_us(folder: CheckpointFolder) -> None:
    for n in range(2, 5):
        folder.write(FACTS, a_state(n))
    names = sorted(path.name for path in folder.path.iterdir())
    assert names == [f"{n:06d}.{suffix}" for n in (3, 4) for suffix in ("json", "safetensors", "sha256")]
    for line in (folder.path / "000004.sha256").read_text().splitlines():
        sha256, _, name = line.partition("  ")
        assert hashlib.sha256((folder.path / name).read_bytes()).hexdigest() == sha256
    folder.remove()
    assert not folder.path.exists()
    assert folder.newest() == (None, [])


@pytest.mark.parametrize("suffix", ["safetensors", "json", "sha256"])
def test_a_flipped_byte_is_noticed_and_the_older_one_taken(folder: CheckpointFolder, suffix: str) -> None:
    path = folder.path / f"000001.{suffix}"
    content = path.read_bytes()
    for place in random.Random(0).sample(range(len(content)), 20):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        last, complaints = folder.newest()
        assert last is not None
        assert_same(last.state, a_state(0))
        (line,) = complaints
        assert "000001.sha256 is damaged" in line
    for damage in (content[:-1], b""):
        path.write_bytes(damage)
        assert newest_iteration(folder) == 0
    path.unlink()
    assert newest_iteration(folder) == 0
    # What is damaged is never gone back to.
    folder.remove(newer_than=0)
    assert {path.stem for path in folder.path.iterdir()} == {"000000"}
    folder.write(FACTS, a_state(5))
    assert newest_iteration(folder) == 5


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """The system lets no file grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_leaves_the_older_ones(folder: CheckpointFolder) -> None:
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    sizes = [len(content) for content in before.values()]
    assert min(sizes) < max(sizes)
    for limit in (0, min(sizes), max(sizes) - 1):
        with largest_file(limit), pytest.raises(UsageError, match=r"cannot write .*: File too large"):
            folder.write(FACTS, a_state(2))
        assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_error_at_any_step_leaves_the_older_ones(
    folder: CheckpointFolder, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = getattr(os, call), 0

    def failing(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*arguments)

    monkeypatch.setattr(atomic.os, call, failing)
    messages: list[str] = []
    for step in range(1, 7):
        expected, left = step, step
        before = newest_iteration(folder)
        try:
            folder.write(FACTS, a_state(step))
        except UsageError as error:
            messages.append(str(error))
            expected = before
        assert newest_iteration(folder) == expected
        assert not [path for path in folder.path.iterdir() if path.suffix == ".tmp"]
        assert len(list(folder.path.glob("*.sha256"))) == 2
    # Three files are moved into place; each is flushed, and so is the folder after each, which may fail.
    assert len(messages) == 3
    assert all("Input/output error" in message for message in messages)


@dataclass(frozen=True)
class Number:
    value: int

    def state(self) -> State:
        return {"value": self.value}

    @classmethod
    def restored(cls, state: State) -> Number:
        return cls(state["value"])


class Program:
    """Two results, each from some steps with a running total, and a sum; tells what it did."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.done: list[str] = []
        self.total = 0

    def run(self) -> int:
        self.checkpoints.begin(lambda: {"total": self.total}, self._restore)
        results = [self.checkpoints.once(f"result {n}", lambda n=n: self._result(n), Number) for n in range(2)]
        with self.checkpoints.part("end", dict) as kept:
            if kept is None:
                self.done.append("end")
            self.checkpoints.offer()
        return sum(result.value for result in results) + self.total

    def _restore(self, state: State) -> None:
        self.total = state["total"]

    def _result(self, n: int) -> Number:
        value = 0
        with self.checkpoints.part("steps", lambda: {"step": step, "value": value}) as kept:
            first, value = (0, 0) if kept is None else (kept["step"] + 1, kept["value"])
            for step in range(first, 3):
                value += 10**n * step
                self.total += 1
                self.done.append(f"{n}.{step}")
                self.checkpoints.offer()
        return Number(value)


def test_a_program_that_stops_at_every_offer_does_every_step_once() -> None:
    whole = Program(Checkpoints())
    expected = whole.run()
    assert expected == 33 + 6
    done: list[str] = []
    states: list[State] = []
    while True:
        kept = states[-1] if states else None
        # One offer is let pass, or it would stop before it begins.
        passed = iter([False])
        program = Program(Checkpoints(states.append, stop=lambda p=passed: next(p, True), every_s=1e9, kept=kept))
        try:
            found = program.run()
            break
        except StoppedError:
            done += program.done
        assert len(states) < 20
    assert found == expected
    assert done + program.done == whole.done


def test_nothing_is_kept_of_what_is_over() -> None:
    states: list[State] = []
    checkpoints = Checkpoints(states.append, every_s=0)
    Program(checkpoints).run()
    assert [*states[0]] == []
    assert [*states[1]] == ["", "/result 0/steps"]
    assert [*states[-1]] == ["", "/result 0 is over", "/result 1 is over", "/end"]


def test_checkpoints_come_in_time_and_take_a_small_share_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    written: list[float] = []
    cost = 0.0

    def write(state: State) -> None:
        nonlocal now
        now += cost
        written.append(now)

    checkpoints = Checkpoints(write, every_s=60)
    for cost, expected in ((0.0, [0.0, 60.0, 120.0]), (10.0, [190.0, 400.0, 610.0])):
        written.clear()
        while len(written) < 3:
            checkpoints.offer()
            now += 1.0 if cost == 0 else 10.0
        assert written == expected
        now = written[-1]


def test_a_checkpoint_that_cannot_be_written_is_told_once() -> None:
    def refuse(state: State) -> None:
        raise UsageError("cannot write run/checkpoints: No space left on device")

    said: list[str] = []
    stop = False
    checkpoints = Checkpoints(refuse, every_s=0, stop=lambda: stop, how_to_go_on="hoarfrost resume run")
    checkpoints.say = said.append
    for _ in range(3):
        checkpoints.offer()
    (line,) = said
    assert "No space left on device" in line
    assert "The run goes on" in line
    stop = True
    with pytest.raises(StoppedError, match=r"is lost \(cannot write .*\)\. Go on with: hoarfrost resume run"):
        checkpoints.offer()


@pytest.mark.parametrize("every_s", [-1.0, math.nan, math.inf])
def test_a_time_between_checkpoints_that_makes_no_sense_is_refused(every_s: float) -> None:
    with pytest.raises(UsageError, match="--checkpoint-every"):
        checkpoint.check_interval(every_s)


@pytest.mark.parametrize("kind", [MinibatchSampler, partial(MinibatchSampler, folds=4), FixedMinibatchSampler])
def test_a_sampler_goes_on_where_it_was(
    kind: Callable[..., MinibatchSampler | FixedMinibatchSampler], tmp_path: Path
) -> None:
    samplers = [kind(torch.arange(53), 10, named_generator(0, "sampler")) for _ in range(2)]
    for _ in range(8):
        samplers[0].next()
    samplers[1].restore(through_files(samplers[0].state(), tmp_path))
    assert samplers[0].number == samplers[1].number
    for _ in range(12):
        assert torch.equal(samplers[0].next(), samplers[1].next())
        assert samplers[0].number == samplers[1].number


def through_files(state: State, folder: Path) -> State:
    CheckpointFolder(folder).write({}, {"": state})
    last, _ = CheckpointFolder(folder).newest()
    assert last is not None
    found: State = last.state[""]
    return found


@pytest.mark.parametrize("name", METHODS)
def test_every_optimiser_goes_on_where_it_was(name: str, tmp_path: Path) -> None:
    """On noisy quadratics, with all that it remembers through files; long enough for TONGA to refresh its columns."""
    n, n_batches = 12, 4
    curvature = torch.linspace(0.1, 1.0, n)
    targets = torch.randn(n_batches, n, generator=named_generator(0, "targets"))

    def steps(point: Tensor, state: State | None, first: int, last: int) -> tuple[Tensor, State]:
        parameter = torch.nn.Parameter(point.clone())
        optimiser = METHODS[name].build([parameter], 0.05, Facts(1.0, n_batches))
        if state is not None:
            of_parameters = {int(number): of_one for number, of_one in state["state"].items()}
            optimiser.load_state_dict({**state, "state": of_parameters})
        for step in range(first, last):

            def closure(step: int = step) -> Tensor:
                optimiser.zero_grad()
                loss = (curvature * (parameter - targets[step % n_batches]).square()).sum() / 2
                loss.backward()
                return loss.detach()

            optimiser.batch = step % n_batches  # type: ignore[attr-defined]  # SAG looks at it
            optimiser.step(closure)
        return parameter.detach(), optimiser.state_dict()

    begun = torch.zeros(n)
    whole, _ = steps(begun, None, 0, 60)
    middle, state = steps(begun, None, 0, 27)
    found, _ = steps(middle, through_files(state, tmp_path), 27, 60)
    assert torch.equal(found, whole)
