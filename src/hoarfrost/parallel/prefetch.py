"""Reading ahead: the next batch is loaded by a thread while the current one is worked on."""

from collections.abc import Callable, Generator, Iterable
from itertools import islice
from typing import TypeVar

from hoarfrost.parallel.threads import WORKER, one_core_threads

Batch = TypeVar("Batch")
Loaded = TypeVar("Loaded")


def prefetched(load: Callable[[Batch], Loaded], batches: Iterable[Batch]) -> Generator[tuple[Batch, Loaded]]:
    """Each batch with what `load` makes of it, in order; never more than one is loaded ahead.

    `batches` are drawn by the caller's thread, one ahead, so which are drawn does not depend on the thread's timing.
    What `load` raises is raised here when its batch's turn comes. The thread has ended when the iterator ends, fails or
    is closed.
    """
    iterator = iter(batches)
    with one_core_threads(1, f"{WORKER}-read") as thread:
        waiting = [(batch, thread.submit(load, batch)) for batch in islice(iterator, 1)]
        while waiting:
            batch, future = waiting.pop()
            loaded = future.result()
            waiting = [(ahead, thread.submit(load, ahead)) for ahead in islice(iterator, 1)]
            yield batch, loaded
