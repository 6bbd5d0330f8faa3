"""Which particles are held out and which come next: functions of the seed alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hoarfrost.seeds import named_generator


def split_held_out(n_images: int, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of `held_out` random particles to judge by, and of the rest to train on: int64, sorted."""
    order = torch.randperm(n_images, generator=named_generator(seed, "held-out"))
    return order[:held_out].sort().values, order[held_out:].sort().values


class MinibatchSampler:
    """Random minibatches of the indices given, every particle once an epoch, in a new order each epoch."""

    def __init__(self, indices: Tensor, batch_size: int, generator: torch.Generator) -> None:
        self._indices = indices
        self.batch_size = min(batch_size, len(indices))
        self._generator = generator
        self._queue = indices[:0]

    @property
    def number(self) -> int:
        """Number of the latest minibatch among those that stay the same: none do here, so 0."""
        return 0

    def next(self) -> Tensor:
        """Indices of the next minibatch, (batch_size,) int64."""
        while len(self._queue) < self.batch_size:
            shuffled = self._indices[torch.randperm(len(self._indices), generator=self._generator)]
            self._queue = torch.cat([self._queue, shuffled])
        batch, self._queue = self._queue[: self.batch_size], self._queue[self.batch_size :]
        return batch

    def state(self) -> dict[str, Any]:
        """What all further minibatches follow from, for `restore`."""
        return {"generator": self._generator.get_state(), "queue": self._queue}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where another sampler of the same indices was."""
        self._generator.set_state(state["generator"])
        self._queue = state["queue"]


class FixedMinibatchSampler:
    """Minibatches that stay the same, as SAG needs them; each once an epoch, in a new order each epoch.

    The indices are shuffled once and split into the fewest parts of at most `batch_size`, equal to within one.
    """

    def __init__(self, indices: Tensor, batch_size: int, generator: torch.Generator) -> None:
        self._generator = generator
        shuffled = indices[torch.randperm(len(indices), generator=self._generator)]
        self.n_batches = -(-len(indices) // batch_size)
        self._parts = torch.tensor_split(shuffled, self.n_batches)
        self._queue: list[int] = []
        self.number = 0

    def next(self) -> Tensor:
        """Indices of the next minibatch, int64; `number` then tells which it is."""
        if not self._queue:
            self._queue = torch.randperm(self.n_batches, generator=self._generator).tolist()
        self.number = self._queue.pop(0)
        return self._parts[self.number]

    def state(self) -> dict[str, Any]:
        """What all further minibatches follow from, for `restore`."""
        return {"generator": self._generator.get_state(), "queue": self._queue, "number": self.number}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where another sampler of the same indices and seed was."""
        self._generator.set_state(state["generator"])
        self._queue = list(state["queue"])
        self.number = state["number"]
