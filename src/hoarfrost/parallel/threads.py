"""Threads that each work on their own piece of a large sum, with every torch operation on one core.

Torch by itself splits each operation among the cores: data move between their caches, and all wait for the slowest. A
worker here keeps its piece in its own cache. Pieces do not depend on the number of workers, so neither do results.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def each(function: Callable[[Piece], Result], pieces: Sequence[Piece], device: torch.device) -> list[Result]:
    """Results of `function` for every piece, in order and without gradients.

    On the CPU there are as many workers as torch has threads.
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

    count = torch.get_num_threads()
    pool = _workers(count)
    for future in [pool.submit(work) for _ in range(min(count, len(pieces)))]:
        future.result()
    return [results[number] for number in range(len(pieces))]


@lru_cache(maxsize=1)
def _workers(count: int) -> ThreadPoolExecutor:
    return one_core_threads(count, "hoarfrost")


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
