"""The processes of one run: each takes its share of every batch, and what they find is summed over all of them.

`Team` is one process alone, for which nothing has to be done; `joined` gives the team that torchrun started. All
processes draw the same random numbers and take their share of them, and all see the same sums, to the last bit: a sum
is made in one place and sent to all. What is computed from sums (a map, a decision) could still differ in its last
bits between unlike machines; so the first process computes it and the others take it over (`from_first`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Protocol, Self, TypeVar, final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]  # public, says its documentation
from torch.distributed.rendezvous import rendezvous

from hoarfrost.errors import HoarfrostError, LostProcessError, ToldElsewhereError, UsageError
from hoarfrost.launch import Place, find_place

# Processes may start minutes apart where they load from a cold network disk. From then on none is ahead of another by
# more than its share of a batch, seconds, and a process that keeps the others waiting for so long is given up.
ARRIVAL_TIMEOUT_S = 300.0
TIMEOUT_S = 45.0
TIMEOUT_VARIABLE = "HOARFROST_TIMEOUT_S"
STORE_TIMEOUT_S = 5.0
FAREWELL_S = 10.0
# How long a process that has just closed its connections may take to be seen as ended.
LEAVING_S = 1.0
TEXT_BYTES = 2048

Result = TypeVar("Result")


class Rows(Protocol):
    """Something that has one row for each image: a tensor, whitened images."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, index: slice, /) -> Self:
        """Some of the rows."""


AnyRows = TypeVar("AnyRows", bound=Rows)


class Team:
    """One process alone."""

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints, and writes the files."""
        return self.rank == 0

    def bounds(self, n: int) -> tuple[int, int]:
        """First row of this process's share of `n`, and the first that is not; shares differ by one row at most."""
        return n * self.rank // self.size, n * (self.rank + 1) // self.size

    def share(self, rows: AnyRows) -> AnyRows:
        """The rows of this process's share, of rows that all have."""
        first, last = self.bounds(len(rows))
        return rows[first:last]

    def gather(self, rows: Tensor, n: int) -> Tensor:
        """All `n` rows, (n, …), of which each process has the rows of its share, in order."""
        return rows

    def gather_all(self, rows: Tensor) -> Tensor:
        """The rows of all processes, those of the first first, however many each has."""
        return rows

    def sum_(self, *tensors: Tensor) -> None:
        """Turn each tensor into its sum over the processes; all are of one type."""

    def from_first(self, compute: Callable[[], Tensor], like: Tensor) -> Tensor:
        """What the first process computes: of the shape, type and device of `like`, which stays as it is."""
        return compute()

    def number_from_first(self, compute: Callable[[], float]) -> float:
        """The number that the first process computes."""
        place = torch.zeros((), dtype=torch.float64)
        return float(self.from_first(lambda: place + compute(), place))

    def agree(self, work: Callable[[], Result]) -> Result:
        """Do `work` in every process, and go on only if it was done in all.

        Raises the HoarfrostError of the first process in which it failed, in every process.
        """
        return work()

    def agree_on(self, text: str) -> None:
        """Raise UsageError unless all processes have the same text."""


@final
class _ProcessTeam(Team):
    """One process among others that torch.distributed connects."""

    def __init__(self, place: Place, store: Store, timeout_s: float) -> None:
        self.rank, self.size = place.rank, place.size
        self._store, self._timeout_s = store, timeout_s
        self.host = socket.gethostname()
        places = self._texts(f"{os.getpid()} {self.host}")
        self._pids = [int(text.partition(" ")[0]) for text in places]
        self._hosts = [text.partition(" ")[2] for text in places]

    def gather(self, rows: Tensor, n: int) -> Tensor:
        """All `n` rows, (n, …), of which each process has the rows of its share, in order."""
        everyone = rows.new_zeros(n, *rows.shape[1:])
        first, last = self.bounds(n)
        everyone[first:last] = rows
        self.sum_(everyone)
        return everyone

    def gather_all(self, rows: Tensor) -> Tensor:
        """The rows of all processes, those of the first first, however many each has."""
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(rows)
        self.sum_(lengths)
        first, n = int(lengths[: self.rank].sum()), int(lengths.sum())
        everyone = rows.new_zeros(n, *rows.shape[1:])
        everyone[first : first + len(rows)] = rows
        if n:
            self.sum_(everyone)
        return everyone

    def sum_(self, *tensors: Tensor) -> None:
        """Turn each tensor into its sum over the processes; all are of one type."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _contact():
            dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def from_first(self, compute: Callable[[], Tensor], like: Tensor) -> Tensor:
        """What the first process computes: of the shape, type and device of `like`, which stays as it is."""
        value = compute().contiguous() if self.is_first else like.new_empty(like.shape)
        with _contact():
            dist.broadcast(value, src=0)
        return value

    def agree(self, work: Callable[[], Result]) -> Result:
        """Do `work` in every process, and go on only if it was done in all.

        Raises the HoarfrostError of the first process in which it failed, in every process.
        """
        error: HoarfrostError | None = None
        try:
            result = work()
        except HoarfrostError as failure:
            error = failure
        texts = self._texts("" if error is None else f"{error.exit_code} {error}")
        failed = next((rank for rank, text in enumerate(texts) if text), None)
        if failed is None:
            return result
        if failed == self.rank:
            assert error is not None
            raise error
        code, _, message = texts[failed].partition(" ")
        raise _AgreedError(message, int(code))

    def agree_on(self, text: str) -> None:
        """Raise UsageError unless all processes have the same text."""
        texts = self._texts(text)
        other = next((rank for rank, found in enumerate(texts) if found != texts[0]), None)
        if other is not None:
            raise UsageError(
                f"process {other} on {self._hosts[other]} does not see the same particles and options as process 0 on "
                f"{self._hosts[0]}; give every process the same command and the same files"
            )

    def last_word(self, error: BaseException) -> BaseException:
        """What this process raises in place of an error that ends it, so that the user is told once."""
        if isinstance(error, _LostContactError | _TerminatedError):
            # Once in all if it is one process's own failure, else once on each machine.
            if self._counted("failures", 0) > 0 or self._counted(f"losses on {self.host}", 1) > 1:
                return ToldElsewhereError(LostProcessError.exit_code)
            return LostProcessError(self._story(error))
        if not isinstance(error, Exception) or self._counted("failures", 1) == 1:
            return error
        return ToldElsewhereError(getattr(error, "exit_code", 1))

    def part(self) -> None:
        """Close the connections after a failure; the first process, which may keep the counts, ends last."""
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
        self._counted(f"parted {self.rank}", 1)
        until, others = time.monotonic() + FAREWELL_S, set(range(1, self.size)) if self.is_first else set()
        while others and time.monotonic() < until:
            time.sleep(0.05)
            others -= {*self._ended_at_once(), *(rank for rank in others if self._counted(f"parted {rank}", 0))}

    def _texts(self, text: str) -> list[str]:
        """What every process says, by rank. Texts longer than 2 kB are cut."""
        said = text.encode()[:TEXT_BYTES]
        row = torch.zeros(1, TEXT_BYTES, dtype=torch.uint8)
        row[0, : len(said)] = torch.tensor(list(said), dtype=torch.uint8)
        return [bytes(r.tolist()).rstrip(b"\0").decode(errors="ignore") for r in self.gather(row, self.size)]

    def _counted(self, what: str, more: int) -> int:
        """A count that all processes share, after adding to it; `more` where it cannot be reached."""
        answer = [more]

        def ask() -> None:
            with contextlib.suppress(RuntimeError):
                answer[0] = self._store.add(what, more)

        # The process that keeps the counts may be the one that no longer answers.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(STORE_TIMEOUT_S)
        return answer[0]

    def _story(self, error: BaseException) -> str:
        """One line for the user: which process was lost, and what to do."""
        ended = self._ended_here()
        if ended:
            numbers = " and ".join(f"{rank} (pid {self._pids[rank]})" for rank in ended)
            what = f"of the {self.size} processes, number {numbers} on {self.host} ended before the run was done"
        elif isinstance(error, _TerminatedError):
            what = f"process {self.rank} on {self.host} was asked to end by its launcher or the batch system"
        else:
            others = ", ".join(sorted({*self._hosts} - {self.host})) or self.host
            what = (
                f"process {self.rank} on {self.host} lost contact with the other {self.size - 1}: one on {others} has "
                f"ended, or has kept it waiting for {self._timeout_s:g} s"
            )
        return f"{what}; look for that one's own message or whether memory ran out, then go on with hoarfrost resume"

    def _ended_here(self) -> list[int]:
        until = time.monotonic() + LEAVING_S
        while not (ended := self._ended_at_once()) and time.monotonic() < until:
            time.sleep(0.05)
        return ended

    def _ended_at_once(self) -> list[int]:
        """Ranks of processes on this machine that are no more."""
        return [rank for rank, host in enumerate(self._hosts) if host == self.host and _has_ended(self._pids[rank])]


@contextlib.contextmanager
def joined(device: str = "auto", threads: int | None = None) -> Iterator[Team]:
    """The team that this process is in, for the time of the block.

    Each process computes on a GPU of its own where `device` is not cpu and there are enough, and on `threads` CPU
    threads; unless given, those of one machine share its cores. When a block fails, in one process or in several, one
    of them raises the error and the others ToldElsewhereError; where a process is lost, one on each machine raises
    LostProcessError. The wait for another process ends after 45 s, or what HOARFROST_TIMEOUT_S says.

    Raises UsageError for an environment that makes no sense, LostProcessError where not all processes arrive.
    """
    place = find_place()
    if threads is not None:
        torch.set_num_threads(threads)
    if place.size == 1:
        yield Team()
        return
    if threads is None:
        torch.set_num_threads(_default_threads(place))
    team = _connect(place, _backend(place, device))
    with _terminations_raised():
        try:
            yield team
        except BaseException as error:
            # torchrun asks all others to end when one has: let this one finish what it has to say.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            last = team.last_word(error)
            team.part()
            if last is error:
                raise
            raise last from error
    dist.destroy_process_group()


def _connect(place: Place, backend: str) -> _ProcessTeam:
    """Wait for all processes, and connect them."""
    timeout_s = _timeout_s()
    # Or a lost peer would end a process with CUDA's own message, or never.
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
    arrival = timedelta(seconds=ARRIVAL_TIMEOUT_S)
    try:
        store, _, _ = next(rendezvous("env://", place.rank, place.size, timeout=arrival))
        names = [f"hoarfrost/backend of {rank}" for rank in range(place.size)]
        store.set(names[place.rank], backend)
        store.wait(names, arrival)
        # A machine with too few GPUs takes gloo, and so all do.
        if len({store.get(name) for name in names}) > 1:
            backend = "gloo"
        dist.init_process_group(
            backend, store=store, rank=place.rank, world_size=place.size, timeout=timedelta(seconds=timeout_s)
        )
        return _ProcessTeam(place, PrefixStore("hoarfrost", store), timeout_s)
    except (RuntimeError, ValueError, _LostContactError) as error:
        if place.local_rank > 0:
            raise ToldElsewhereError(LostProcessError.exit_code) from error
        raise LostProcessError(
            f"process {place.rank} of {place.size} on {socket.gethostname()} could not reach the others: "
            f"{str(error).partition(chr(10))[0]}; start with torchrun, and name the network interface to use in "
            "GLOO_SOCKET_IFNAME"
        ) from error


def _backend(place: Place, device: str) -> str:
    """What carries the sums: NCCL where every process has a GPU of its own, else gloo, which goes through the CPU."""
    if device == "cpu" or not torch.cuda.is_available():
        return "gloo"
    torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    return "cpu:gloo,cuda:nccl" if torch.cuda.device_count() >= place.local_size else "gloo"


def _timeout_s() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, str(TIMEOUT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"{TIMEOUT_VARIABLE} must be a positive number of seconds, found {text}")
    return seconds


def _default_threads(place: Place) -> int:
    """Its part of the machine's cores. torchrun asks for 1 thread where the user asks for nothing."""
    asked = os.environ.get("OMP_NUM_THREADS", "1")
    if asked.isdecimal() and int(asked) > 1:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // place.local_size)


def _has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:  # its parent may not have taken notice yet
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return False


class _AgreedError(HoarfrostError):
    """The error of another process, with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class _LostContactError(Exception):
    """A collective operation failed: a process has closed its connection, or kept this one waiting too long."""


class _TerminatedError(BaseException):
    """The launcher or the batch system asked this process to end."""


@contextlib.contextmanager
def _contact() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's alike
        raise _LostContactError(str(error)) from error


@contextlib.contextmanager
def _terminations_raised() -> Iterator[None]:
    """Raise where the process is asked to end, so that it can say why. After a failure requests stay unheard.

    A program that listens to such requests by itself goes on doing so.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def ended(number: int, frame: FrameType | None) -> None:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, ended)
    yield
    signal.signal(signal.SIGTERM, before)
