"""Threads that each work on their own piece of a large sum, with every torch operation on one core.

Torch by itself splits each operation among the cores: data move between their caches, and all wait for the slowest. A
worker here keeps its piece in its own cache. Pieces do not depend on the number of workers, so neither do results.

In a run torch's own threads work only where an operation is large (`wide`): where another program takes a core, every
small operation would wait for the thread that was on it.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

# Points of a grid; on fewer, threads wait for each other about as long as they save.
LEAST_WIDE = 1 << 21
Piece = TypeVar("Piece")
Result = TypeVar("Result")


_count: list[int] = []
# What the names of all workers begin with.
WORKER = "hoarfrost"


def cores() -> int:
    """How many threads work is split among: as `on_cores` says, and else as torch has."""
    return _count[-1] if _count else torch.get_num_threads()


@contextlib.contextmanager
def on_cores(count: int) -> Iterator[None]:
    """For the time of the block work is split among so many workers, and torch's operations stay on one core each."""
    before = torch.get_num_threads()
    _count.append(count)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _count.pop()
        torch.set_num_threads(before)


@contextlib.contextmanager
def wide(points: int) -> Iterator[None]:
    """Torch's operations on grids of so many points are split among all cores, if that is worth it; not in workers."""
    if not _count or points < LEAST_WIDE or threading.current_thread().name.startswith(WORKER):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def each(function: Callable[[Piece], Result], pieces: Sequence[Piece], device: torch.device) -> list[Result]:
    """Results of `function` for every piece, in order and without gradients.

    On the CPU there are as many workers as `cores`.
    """
    if device.type != "cpu":
        with torch.no_grad():
            return [function(piece) for piece in pieces]
    results: dict[int, Result] = {}
    left = deque(enumerate(pieces))

    @torch.no_grad()
    def work() -> None:
        # A worker takes its next piece itself, as handing it over would cost more.
        while left:
            try:
                number, piece = left.popleft()
            except IndexError:  # another worker was faster
                return
            results[number] = function(piece)

    count = cores()
    pool = _workers(count)
    for future in [pool.submit(work) for _ in range(min(count, len(pieces)))]:
        future.result()
    return [results[number] for number in range(len(pieces))]


@lru_cache(maxsize=1)
def _workers(count: int) -> ThreadPoolExecutor:
    return one_core_threads(count, WORKER)


def one_core_threads(count: int, name: str) -> ThreadPoolExecutor:
    """`count` threads in which every torch operation stays on one core.

    With more OpenMP threads than cores, libgomp would send its threads to sleep at every barrier.
    """
    own = torch.get_num_threads()
    started = threading.Barrier(count + 1)
    pool = ThreadPoolExecutor(count, name, initializer=_on_one_core)
    for _ in range(count):
        pool.submit(started.wait)
    started.wait()
    # The number is that of this thread, and also that with which later threads begin.
    torch.set_num_threads(own)
    return pool


def _on_one_core() -> None:
    torch.set_num_threads(1)
    # A thread adopts the common number when it first asks for it; asked now, it stays at one.
    torch.get_num_threads()
