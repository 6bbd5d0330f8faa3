"""Reading ahead: in order, one batch and no more, with errors where they belong, and no thread left."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from hoarfrost.parallel.prefetch import prefetched


def threads() -> int:
    return sum(thread.name.startswith("hoarfrost-read") for thread in threading.enumerate())


def test_batches_come_in_order_each_with_what_was_loaded() -> None:
    assert list(prefetched(lambda n: n * n, range(5))) == [(n, n * n) for n in range(5)]
    assert list(prefetched(lambda n: n, [])) == []
    assert threads() == 0


def test_the_next_batch_is_loaded_while_one_is_worked_on_and_no_further() -> None:
    loaded = [threading.Event() for _ in range(5)]
    drawn: list[int] = []

    def batches() -> Iterator[int]:
        for n in range(5):
            assert threading.current_thread() is threading.main_thread()
            drawn.append(n)
            yield n

    with contextlib.closing(prefetched(lambda n: loaded[n].set(), batches())) as stream:
        for n, _ in stream:
            if n < 4:
                assert loaded[n + 1].wait(timeout=30)  # though nobody has asked for it yet
            assert drawn == list(range(min(n + 2, 5)))
            assert not any(event.is_set() for event in loaded[n + 2 :])
            if n == 2:
                break
    assert threads() == 0


def test_an_error_is_raised_when_its_batch_is_due() -> None:
    def load(n: int) -> int:
        if n == 2:
            raise ValueError("batch 2")
        return n

    stream = prefetched(load, range(5))
    assert [next(stream)[0], next(stream)[0]] == [0, 1]
    with pytest.raises(ValueError, match="batch 2"):
        next(stream)
    assert list(stream) == []
    assert threads() == 0


def test_an_error_of_the_caller_ends_the_thread() -> None:
    def work() -> None:
        with contextlib.closing(prefetched(lambda n: n, range(5))) as stream:
            next(stream)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert threads() == 0
