"""Joining the team that torchrun started, for the time of a run, and leaving it with one message to the user."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # public, says its documentation
from torch.distributed.rendezvous import rendezvous

from hoarfrost.errors import LostProcessError, ToldElsewhereError, UsageError
from hoarfrost.parallel.available import available_cores
from hoarfrost.parallel.launch import Place, find_place
from hoarfrost.parallel.processes import LostContactError, ProcessTeam, TerminatedError
from hoarfrost.parallel.team import Team
from hoarfrost.parallel.threads import cores, on_cores

# Processes may start minutes apart, as they load from a cold network disk. Later none is ahead of another by more than
# its part of a batch, which takes seconds.
ARRIVAL_TIMEOUT_S = 300.0
TIMEOUT_S = 45.0
TIMEOUT_VARIABLE = "HOARFROST_TIMEOUT_S"


@contextlib.contextmanager
def joined(device: str = "auto", threads: int | None = None) -> Iterator[Team]:
    """The team that this process is in, for the time of the block.

    Each process computes on a GPU of its own, where `device` is not cpu and there are enough, and on `threads` CPU
    threads; unless given, the processes of one machine share its cores. When a block fails, one process raises the
    error and the others ToldElsewhereError. Where a process is lost, one on each machine raises LostProcessError. The
    wait for another process ends after 45 s, or what HOARFROST_TIMEOUT_S says.

    Raises UsageError for an environment that makes no sense, LostProcessError where not all processes arrive.
    """
    place = find_place()
    with on_cores(threads or _default_threads(place)):
        if place.size == 1:
            yield Team()
            return
        with _joined(place, device) as team:
            yield team


@contextlib.contextmanager
def _joined(place: Place, device: str) -> Iterator[ProcessTeam]:
    team = _connect(place, _backend(place, device))
    with _terminations_raised():
        try:
            yield team
        except BaseException as error:
            # torchrun asks all others to end when one has; this one is to finish its message.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            last = team.last_word(error)
            team.part()
            if last is error:
                raise
            raise last from error
    dist.destroy_process_group()


def _connect(place: Place, backend: str) -> ProcessTeam:
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
        return ProcessTeam(place, PrefixStore("hoarfrost", store), timeout_s)
    except (RuntimeError, ValueError, LostContactError) as error:
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
    """The part of the machine's cores for one process. torchrun sets 1 thread where the user sets none."""
    if place.size == 1:
        return min(cores(), available_cores())
    asked = os.environ.get("OMP_NUM_THREADS", "1")
    if asked.isdecimal() and int(asked) > 1:
        return int(asked)
    return max(1, available_cores() // place.local_size)


@contextlib.contextmanager
def _terminations_raised() -> Iterator[None]:
    """Raise where the process is asked to end, so that it can say why; a program's own handler stays in place."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def ended(number: int, frame: FrameType | None) -> None:
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, ended)
    yield
    signal.signal(signal.SIGTERM, before)
