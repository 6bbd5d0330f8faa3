"""Minibatches read ahead: while one is worked on, a thread loads the next that the sampler will give."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import final

from torch import Tensor

from hoarfrost.model.images import WhitenedImages
from hoarfrost.parallel.threads import WORKER, one_core_threads
from hoarfrost.particles.sampling import FixedMinibatchSampler, MinibatchSampler

Sampler = MinibatchSampler | FixedMinibatchSampler


@final
class Reader:
    """Loads the minibatches of samplers by `load`, which any thread may call with their indices.

    What it has loaded ahead is of no consequence: a sampler that it does not expect is read from anew.
    """

    def __init__(self, load: Callable[[Tensor], WhitenedImages]) -> None:
        self._load = load
        self._thread = one_core_threads(1, f"{WORKER}-read")
        self._ahead: tuple[Sampler, Tensor, Sampler, Future[WhitenedImages]] | None = None

    def next(self, sampler: Sampler) -> tuple[Tensor, WhitenedImages, Sampler]:
        """Indices of the sampler's next minibatch, its images, and the sampler after it."""
        if self._ahead is None or self._ahead[0] is not sampler:
            self._ahead = self._begin(sampler)
        _, indices, after, future = self._ahead
        images = future.result()
        self._ahead = self._begin(after)
        return indices, images, after

    def _begin(self, sampler: Sampler) -> tuple[Sampler, Tensor, Sampler, Future[WhitenedImages]]:
        indices, after = sampler.next()
        return sampler, indices, after, self._thread.submit(self._load, indices)

    def close(self) -> None:
        """End the thread, once it has loaded what it is at."""
        self._thread.shutdown()
