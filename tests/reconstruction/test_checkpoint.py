"""Checkpoints come back bit for bit, or not at all: their files, and the phases of a run that they hold."""

from __future__ import annotations

import ast
import dataclasses
import errno
import hashlib
import math
import os
import random
import resource
import runpy
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

import hoarfrost
from hoarfrost.errors import StoppedError, UsageError
from hoarfrost.io import atomic
from hoarfrost.io.mrc import write_volume
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.map_prior import ExponentialCubicPrior
from hoarfrost.optim.registry import METHODS, Facts
from hoarfrost.optim.sag import SAG
from hoarfrost.particles.cache import PackedCache
from hoarfrost.particles.contrast import Contrast
from hoarfrost.particles.sampling import FixedMinibatchSampler, MinibatchSampler
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.env import Env, Memo
from hoarfrost.reconstruction.phases import Run
from hoarfrost.reconstruction.refinement.final_passes import FinalPasses
from hoarfrost.reconstruction.run import begun, open_source
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.settings.plan import resolve
from hoarfrost.reconstruction.starts import gradient
from hoarfrost.reconstruction.starts.gradient import Descent, GradientMethod, Objective
from hoarfrost.reconstruction.state import checkpoints as checkpoint
from hoarfrost.reconstruction.state.checkpoints import Checkpoints
from hoarfrost.reconstruction.state.phase import drive
from hoarfrost.reconstruction.state.store import CheckpointFolder, State
from hoarfrost.reconstruction.state.tree import plain, restored
from hoarfrost.reconstruction.symmetry import search
from hoarfrost.simulation.phantom import make_phantom

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


def test_nothing_is_left_of_a_folder_that_is_removed(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.write(FACTS, a_state(1))
    # safetensors was killed in the middle of a file.
    (folder.path / ".tmpojLD8I").write_bytes(b"half")
    folder.remove()
    assert not folder.path.exists()


@dataclass(frozen=True)
class Count:
    """A run of `n` steps with a running total."""

    n: int
    number: int = 0
    total: int = 0

    @property
    def is_over(self) -> bool:
        return self.number == self.n

    def step(self, env: list[int]) -> Count:
        env.append(self.number)
        return Count(self.n, self.number + 1, self.total + 10**self.number)


class Watcher:
    """Offers checkpoints after each step, and notes the totals that it saw."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self.totals: list[int] = []

    def after(self, run: Count, env: list[int]) -> None:
        self.totals.append(run.total)
        assert self._checkpoints.after(run) is None


def test_the_driver_shows_every_step_once_and_ends() -> None:
    done: list[int] = []
    watcher = Watcher(Checkpoints())
    assert drive(Count(4), done, watcher) == Count(4, 4, 1111)
    assert done == [0, 1, 2, 3]
    assert watcher.totals == [1, 11, 111, 1111]
    # What is over takes no step.
    assert drive(Count(4, 4, 7), done, watcher).total == 7
    assert len(done) == 4


def test_a_run_that_stops_after_every_step_does_every_step_once() -> None:
    done: list[int] = []
    states: list[State] = []
    run = Count(6)
    while True:
        checkpoints = Checkpoints(states.append, stop=lambda: True, every_s=1e9, goes_on=bool(states))
        try:
            run = drive(run, done, Watcher(checkpoints))
            break
        except StoppedError:
            run = restored(Count, states[-1])
        assert len(states) < 20
    assert run == Count(6, 6, 111111)
    assert done == list(range(6))
    assert len(states) == 6


def test_a_run_that_goes_on_from_a_checkpoint_writes_none_at_once() -> None:
    for goes_on in (False, True):
        states: list[State] = []
        drive(Count(3), [], Watcher(Checkpoints(states.append, every_s=1e9, goes_on=goes_on)))
        assert len(states) == (0 if goes_on else 1)


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
            assert checkpoints.after(None) is None
            now += 1.0 if cost == 0 else 10.0
        assert written == expected
        now = written[-1]


def test_a_checkpoint_that_cannot_be_written_is_told_once() -> None:
    def refuse(state: State) -> None:
        raise UsageError("cannot write run/checkpoints: No space left on device")

    stop = False
    checkpoints = Checkpoints(refuse, every_s=0, stop=lambda: stop, how_to_go_on="hoarfrost resume run")
    line, *later = [checkpoints.after(None) for _ in range(3)]
    assert line is not None
    assert "No space left on device" in line
    assert "The run goes on" in line
    assert later == [None, None]
    stop = True
    with pytest.raises(StoppedError, match=r"is lost \(cannot write .*\)\. Go on with: hoarfrost resume run"):
        checkpoints.after(None)


@pytest.mark.parametrize("every_s", [-1.0, math.nan, math.inf])
def test_a_time_between_checkpoints_that_makes_no_sense_is_refused(every_s: float) -> None:
    with pytest.raises(UsageError, match="--checkpoint-every"):
        hoarfrost.resume("run", checkpoint_every_s=every_s)


Kind = TypeVar("Kind")


def through_files(kind: type[Kind], value: Kind, folder: Path) -> Kind:
    """A value that was written down and read back."""
    CheckpointFolder(folder).write({}, plain(value))
    last, _ = CheckpointFolder(folder).newest()
    assert last is not None
    return restored(kind, last.state)


@dataclass(frozen=True)
class Leaf:
    values: Tensor
    name: str = "leaf"


@dataclass(frozen=True)
class OtherLeaf:
    number: float


@dataclass(frozen=True)
class Branch:
    """One of every kind of field that phases have."""

    leaf: Leaf | OtherLeaf
    perhaps: Leaf | None
    pair: tuple[int, Tensor]
    many: tuple[Leaf | None, ...]
    deep: tuple[tuple[Tensor, ...] | None, ...]
    by_number: dict[int, Tensor]
    anything: dict[str, Any]
    number: float
    is_right: bool
    text_or_none: str | None = None
    tensor_or_none: Tensor | None = None


def a_branch() -> Branch:
    generator = named_generator(7, "branch")
    columns = torch.randn(3, 5, generator=generator)
    odd = torch.tensor([math.nan, -0.0, math.inf, 5e-324], dtype=torch.float64)
    return Branch(
        Leaf(odd, "odd numbers"),
        None,
        (3, columns.T),
        (Leaf(generator.get_state()), None, Leaf(torch.empty(0, 12, dtype=torch.int32))),
        (None, tuple(columns.unbind()), ()),
        {0: torch.tensor([True, False]), 12: torch.randn(2, dtype=torch.complex64, generator=generator)},
        {"state": {3: {"step": torch.tensor(7.0)}}, "groups": [{"betas": (0.9, 0.999), "foreach": None}]},
        -math.inf,
        True,
        tensor_or_none=torch.arange(3),
    )


def assert_same_bits(found: Any, expected: Any) -> None:
    """Fields, entries, types and the bits of tensors are the same."""
    assert type(found) is type(expected)
    if isinstance(expected, Tensor):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert found.is_contiguous()
        assert found.contiguous().numpy().tobytes() == expected.contiguous().numpy().tobytes()
    elif dataclasses.is_dataclass(expected):
        for field in dataclasses.fields(expected):
            assert_same_bits(getattr(found, field.name), getattr(expected, field.name))
    elif isinstance(expected, tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same_bits(one, other)
    elif isinstance(expected, dict):
        assert [*found] == [*expected]
        for key, entry in expected.items():
            assert_same_bits(found[key], entry)
    else:
        assert found == expected or (math.isnan(expected) and math.isnan(found))


def test_a_tree_of_dataclasses_comes_back_with_its_types_and_bits(tmp_path: Path) -> None:
    branch = a_branch()
    found = through_files(Branch, branch, tmp_path)
    # What a field declares as Any has no type to go by: texts as keys, and lists.
    assert_same(found.anything, branch.anything)
    assert_same_bits(dataclasses.replace(found, anything={}), dataclasses.replace(branch, anything={}))
    other = dataclasses.replace(branch, leaf=OtherLeaf(0.1 + 0.2), perhaps=branch.leaf, text_or_none="D7")
    found = through_files(Branch, other, tmp_path)
    assert isinstance(found.leaf, OtherLeaf)
    assert found.leaf.number == 0.1 + 0.2
    assert_same_bits(found.perhaps, branch.leaf)
    assert found.text_or_none == "D7"
    # A whole number is as good where a field is a float, not the other way round.
    assert type(restored(OtherLeaf, {"kind": "OtherLeaf", "number": 3}).number) is float


def without(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: entry for key, entry in value.items() if key != name}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda v: v | {"kind": "Leaf"}, "expected Branch, found Leaf"),
        (lambda v: without(v, "kind"), "expected Branch"),
        (lambda v: [v], "expected Branch, found list"),
        (lambda v: without(v, "number"), "Branch has other fields: number"),
        (lambda v: v | {"colour": 3}, "Branch has other fields: colour"),
        (lambda v: v | {"number": "3"}, "expected float, found str"),
        (lambda v: v | {"number": None}, "expected float, found NoneType"),
        (lambda v: v | {"is_right": 1}, "expected bool, found int"),
        (lambda v: v | {"perhaps": plain(OtherLeaf(1.0))}, "expected Leaf, found OtherLeaf"),
        (lambda v: v | {"perhaps": torch.zeros(3)}, "expected Leaf, found Tensor"),
        (lambda v: v | {"leaf": plain(Count(3))}, "expected Leaf or OtherLeaf, found Count"),
        (lambda v: v | {"leaf": None}, "expected Leaf or OtherLeaf, found NoneType"),
        (lambda v: v | {"leaf": 3.0}, "expected Leaf or OtherLeaf, found float"),
        (lambda v: v | {"pair": [3]}, "expected 2 entries, found 1"),
        (lambda v: v | {"pair": [torch.zeros(3), 3]}, "expected int, found Tensor"),
        (lambda v: v | {"many": 3}, "expected tuple, found int"),
        (lambda v: v | {"deep": [[3.0]]}, "expected Tensor, found float"),
        (lambda v: v | {"by_number": []}, "expected dict, found list"),
        (lambda v: v | {"tensor_or_none": [1.0, 2.0]}, "expected Tensor, found list"),
    ],
)
def test_a_value_of_another_kind_is_refused(damage: Callable[[dict[str, Any]], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        restored(Branch, damage(plain(a_branch())))


def test_phases_that_may_stand_in_the_same_place_have_names_of_their_own() -> None:
    """A checkpoint tells them apart by name, and every field of them is of a kind that can be read back."""
    seen: set[Any] = set()

    def look_at(kind: Any) -> None:
        arguments = typing.get_args(kind)
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            names = [member.__name__ for member in arguments if dataclasses.is_dataclass(member)]
            assert len({*names}) == len(names)
            others = [member for member in arguments if not dataclasses.is_dataclass(member)]
            assert len(others) <= 1 + (type(None) in others)
        if dataclasses.is_dataclass(kind) and kind not in seen:
            seen.add(kind)
            assert isinstance(kind, type)
            # Nothing but a new value takes the place of another: what was written down stays what it is.
            assert kind.__dataclass_params__.frozen, kind  # type: ignore[attr-defined]
            arguments = tuple(typing.get_type_hints(kind)[field.name] for field in dataclasses.fields(kind))
            assert all(field.init for field in dataclasses.fields(kind))
        plain_kinds = (int, float, str, bool, Tensor, type(None), Any, ...)
        origin = typing.get_origin(kind)
        known = (tuple, dict, typing.Union, types.UnionType, typing.Literal)
        assert kind in seen or kind in plain_kinds or origin in known, kind
        if origin is not typing.Literal:
            for argument in arguments:
                look_at(argument)

    look_at(Run)
    assert {kind.__name__ for kind in seen} >= {
        *("Starts", "Stage", "OnlineMethod", "GradientMethod", "MinibatchSampler", "FixedMinibatchSampler"),
        *("ImposeSymmetry", "GroupSearch", "March", "Sweep", "FoldPass", "FinalPasses", "Refining", "Poses"),
    }


@pytest.mark.parametrize("kind", [MinibatchSampler.of, partial(MinibatchSampler.of, folds=4), FixedMinibatchSampler.of])
def test_a_sampler_goes_on_where_it_was(
    kind: Callable[..., MinibatchSampler | FixedMinibatchSampler], tmp_path: Path
) -> None:
    sampler = kind(torch.arange(53), 10, named_generator(0, "sampler"))
    for _ in range(8):
        _, sampler = sampler.next()
    samplers = [sampler, through_files(type(sampler), sampler, tmp_path)]
    assert samplers[0].number == samplers[1].number
    for _ in range(12):
        (one, samplers[0]), (other, samplers[1]) = samplers[0].next(), samplers[1].next()
        assert torch.equal(one, other)
        assert samplers[0].number == samplers[1].number


@pytest.mark.parametrize("name", METHODS)
def test_every_optimiser_goes_on_where_it_was(name: str, tmp_path: Path) -> None:
    """On noisy quadratics, with all that it remembers through files; long enough for TONGA to refresh its columns."""
    n, n_batches = 12, 4
    curvature = torch.linspace(0.1, 1.0, n)
    targets = torch.randn(n_batches, n, generator=named_generator(0, "targets"))
    descent = Descent(name, 0.05, Facts(1.0, n_batches), Objective(ExponentialCubicPrior(), 53))

    def steps(method: GradientMethod | None, first: int, last: int) -> GradientMethod:
        parameter = torch.nn.Parameter(torch.zeros(n) if method is None else method.volume.clone())
        optimiser = descent.optimiser(parameter)
        if method is not None:
            optimiser.load_state_dict(gradient._with_numbers(method.optimiser))
        for step in range(first, last):

            def closure(step: int = step) -> Tensor:
                optimiser.zero_grad()
                loss = (curvature * (parameter - targets[step % n_batches]).square()).sum() / 2
                loss.backward()
                return loss.detach()

            if isinstance(optimiser, SAG):
                optimiser.take(step % n_batches)
            optimiser.step(closure)
        return GradientMethod(descent, parameter.detach(), optimiser.state_dict(), gradient._step_size(optimiser))

    whole = steps(None, 0, 60)
    middle = through_files(GradientMethod, steps(None, 0, 27), tmp_path)
    assert middle.descent == descent
    found = steps(middle, 27, 60)
    assert torch.equal(found.volume, whole.volume)
    assert found.step_size == pytest.approx(whole.step_size, rel=0, abs=0, nan_ok=True)


def test_only_the_driver_and_its_neighbours_know_of_checkpoints() -> None:
    """No phase does, nor anything that phases are made of: neither by an import, nor by a name."""
    home = Path(checkpoint.__file__).parents[1]
    allowed = {"observer.py", "run.py", "resume.py"}
    # The options of a run name the time between them. The run folder holds their files, and tells what is left.
    allowed |= {"settings/options.py", "folder.py"}
    knowing = set()
    for path in home.rglob("*.py"):
        name = path.relative_to(home).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            words = [node.id] if isinstance(node, ast.Name) else []
            words += [node.attr] if isinstance(node, ast.Attribute) else []
            words += [node.arg] if isinstance(node, ast.arg) else []
            words += [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            if isinstance(node, ast.Import | ast.ImportFrom):
                words += [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            # `state.phase` is what phases are made of; that they are written down it does not know.
            if any("checkpoint" in w.lower() or w.endswith((".state.tree", ".state.store")) for w in words):
                knowing.add(name)
    assert {name for name in knowing if not name.startswith("state/")} == allowed
    assert "state/phase.py" not in knowing


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Env]]:
    """Makes what a tiny run works with, anew at each call: all but its files."""
    folder = tmp_path_factory.mktemp("tiny")
    write_volume(folder / "phantom.mrc", make_phantom(24, seed=2, n_blobs=4).numpy(), 8.0)
    data = hoarfrost.simulate(folder / "phantom.mrc", folder / "data", n_particles=60, snr=2.0, seed=1)
    stack = ParticleStack.open(data.particles_path)
    chosen = {"seed": 3, "batch_size": 20, "held_out": 10, "threads": 1, "contrast": "white"}
    lengths = {"shift_sigma_A": 8.0, "shift_extent_A": 16.0}
    threads = torch.get_num_threads()

    def environment(**options: Any) -> Env:
        asked = Options(**{**chosen, **lengths, **options})
        settings = resolve(stack, asked, output=folder / "run")
        source = open_source(stack, settings)
        return Env(settings, source.in_use(1, PackedCache(settings.n_particles, settings.cache_bytes, None)))

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        runpy.run_path(str(Path(__file__).with_name("resume_host.py")))["make_tiny"](patch.setattr)
        patch.setattr(search, "CYCLIC", {2: ()})
        yield environment
    torch.set_num_threads(threads)


def told(run: Run) -> list[tuple[Any, ...]]:
    """What a step had to tell, and the tally; all but the time."""
    return [*run.news, run.tally, run.fraction_done]


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"starts": 2}, {"Starts", "Stage", "OnlineMethod", "March", "Sweep", "FinalPasses", "FoldPass"}),
        ({"starts": 1, "symmetry": "auto"}, {"ImposeSymmetry", "GroupSearch", "Trial", "March", "FinalPasses"}),
        ({"starts": 1, "method": "adam"}, {"Starts", "GradientMethod", "FixedMinibatchSampler", "FinalPasses"}),
    ],
    ids=["two starts", "symmetry", "gradients"],
)
def test_a_run_written_down_and_restored_after_every_step_ends_the_same(
    tiny: Callable[..., Env], tmp_path: Path, options: dict[str, Any], kinds: set[str]
) -> None:
    """It goes on in surroundings that know nothing of what was done: whatever matters is in the fields."""
    options = {**options, "max_resolution_A": 24 * 8.0 / 5.6}
    env = tiny(**options)
    whole = begun(env, Contrast("white", 9.0, False))
    expected = []
    while not whole.is_over:
        whole = whole.step(env)
        expected.append(told(whole))
    env.memo.close()

    env = tiny(**options)
    run = begun(env, Contrast("white", 9.0, False))
    found, seen = [], set()
    while not run.is_over:
        run = run.step(env)
        found.append(told(run))
        seen |= kinds_in(plain(run))
        env.memo.close()
        env = dataclasses.replace(env, memo=Memo())
        back = through_files(Run, run, tmp_path)
        assert_same(plain(back), plain(run))
        run = back
    assert seen >= kinds
    assert len(found) == len(expected)
    assert found == expected
    assert isinstance(run.phase, FinalPasses)
    assert isinstance(whole.phase, FinalPasses)
    ends = [plain(each.phase.result(env)) for each in (run, whole)]
    assert_same(*ends)
    assert run.symmetry == whole.symmetry
    assert run.starts == whole.starts


def kinds_in(value: Any) -> set[str]:
    """The names of all dataclasses in a plain value."""
    if isinstance(value, dict):
        own = {value["kind"]} if "kind" in value else set()
        return own.union(*(kinds_in(entry) for entry in value.values()))
    return set().union(*map(kinds_in, value)) if isinstance(value, list) else set()
