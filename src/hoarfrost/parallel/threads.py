"""Threads that each work on their own piece of a large sum, every torch operation of theirs on one core.

Split inside of an operation, as torch does by itself, data move between the cores' caches from one operation to the
next, and every operation ends with all cores waiting for the slowest. A worker keeps its piece in its own cache.
The pieces and what becomes of them do not depend on the number of workers, so neither do the results.
"""

from __future__ import annotations

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
    """`function` of every piece, in order, without gradients; on the CPU by as many workers as torch has threads."""
    if device.type != "cpu":
        with torch.no_grad():
            return [function(piece) for piece in pieces]
    results: dict[int, Result] = {}
    left = deque(enumerate(pieces))

    @torch.no_grad()
    def work() -> None:
        # Handing a thread its next piece takes 60 µs; letting it take the piece itself, next to nothing.
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
    """Threads in which every torch operation stays on one core, as many as given.

    More OpenMP threads than cores, asleep or not, would make libgomp send its threads to sleep at every barrier: with
    one thread that reads ahead and had two of its own, a run on two cores took half as long again.
    """
    own = torch.get_num_threads()
    started = threading.Barrier(count + 1)
    pool = ThreadPoolExecutor(count, name, initializer=_on_one_core)
    for _ in range(count):
        pool.submit(started.wait)
    started.wait()
    # The number is a thread's own, but also what threads started later begin with.
    torch.set_num_threads(own)
    return pool


def _on_one_core() -> None:
    torch.set_num_threads(1)
    # A thread takes over the common number when it first asks for it; asked now, it stays at one.
    torch.get_num_threads()
