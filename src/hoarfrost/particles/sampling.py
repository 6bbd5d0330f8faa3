"""Which particles are held out and which come next: functions of the seed alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hoarfrost.maths.seeds import named_generator


def split_held_out(n_images: int, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of `held_out` random particles to judge by, and of the rest to train on: int64, sorted."""
    order = torch.randperm(n_images, generator=named_generator(seed, "held-out"))
    return order[:held_out].sort().values, order[held_out:].sort().values


class MinibatchSampler:
    """Random minibatches of the indices given, every particle once an epoch, in a new order each epoch.

    The indices are dealt into `folds`, or fewer so that each holds a minibatch; a minibatch is of one fold, `number`,
    and they take turns.
    """

    def __init__(self, indices: Tensor, batch_size: int, generator: torch.Generator, folds: int = 1) -> None:
        self.batch_size = min(batch_size, len(indices))
        self._generator = generator
        self.folds = max(1, min(folds, len(indices) // self.batch_size))
        dealt = indices if self.folds == 1 else indices[torch.randperm(len(indices), generator=generator)]
        self._parts = dealt.tensor_split(self.folds)
        self._queues = [part[:0] for part in self._parts]
        self.number = self.folds - 1

    def next(self) -> Tensor:
        """Indices of the next minibatch, (batch_size,) int64; `number` then tells its fold."""
        self.number = (self.number + 1) % self.folds
        part, queue = self._parts[self.number], self._queues[self.number]
        while len(queue) < self.batch_size:
            queue = torch.cat([queue, part[torch.randperm(len(part), generator=self._generator)]])
        batch, self._queues[self.number] = queue[: self.batch_size], queue[self.batch_size :]
        return batch

    def state(self) -> dict[str, Any]:
        """What all further minibatches follow from, for `restore`."""
        return {"generator": self._generator.get_state(), "queues": list(self._queues), "number": self.number}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where another sampler of the same indices and seed was."""
        self._generator.set_state(state["generator"])
        self._queues, self.number = list(state["queues"]), state["number"]


class FixedMinibatchSampler:
    """Minibatches that stay the same, as SAG needs them; each once an epoch, in a new order each epoch.

    The indices are shuffled once and split into the fewest parts of at most `batch_size`, equal to within one. They
    are of no `folds`.
    """

    folds = 1

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
