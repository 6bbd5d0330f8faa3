"""Which particles are held out and which come next: functions of the seed alone.

A sampler is a value: `next` returns minibatch and sampler after it, so that what comes next can be looked at ahead.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.seeds import generator_at, named_generator


def split_held_out(n_images: int, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of `held_out` random particles to judge by, and of the rest to train on: int64, sorted."""
    order = torch.randperm(n_images, generator=named_generator(seed, "held-out"))
    return order[:held_out].sort().values, order[held_out:].sort().values


@dataclass(frozen=True)
class MinibatchSampler:
    """Random minibatches of `batch_size`, every particle once an epoch, in a new order each epoch.

    Particles are dealt into `parts`, the folds. A minibatch is of one fold, `number`, and folds take turns. `queues`
    holds what is left of each fold's epoch, `generator` (bytes,) the state that further orders follow from.
    """

    batch_size: int
    parts: tuple[Tensor, ...]
    queues: tuple[Tensor, ...]
    number: int
    generator: Tensor

    @classmethod
    def of(cls, indices: Tensor, batch_size: int, generator: torch.Generator, folds: int = 1) -> MinibatchSampler:
        """Of all `indices` (n,) int64, dealt into `folds`, or fewer so that each holds a minibatch."""
        size = min(batch_size, len(indices))
        folds = max(1, min(folds, len(indices) // size))
        dealt = indices if folds == 1 else indices[torch.randperm(len(indices), generator=generator)]
        parts = dealt.tensor_split(folds)
        return cls(size, tuple(parts), tuple(part[:0] for part in parts), folds - 1, generator.get_state())

    @property
    def folds(self) -> int:
        """Number of folds."""
        return len(self.parts)

    def next(self) -> tuple[Tensor, MinibatchSampler]:
        """Indices of the next minibatch, (batch_size,) int64, and the sampler after it, whose `number` is its fold."""
        number = (self.number + 1) % self.folds
        part, queue = self.parts[number], self.queues[number]
        generator = generator_at(self.generator)
        while len(queue) < self.batch_size:
            queue = torch.cat([queue, part[torch.randperm(len(part), generator=generator)]])
        left = queue[self.batch_size :]
        queues = (*self.queues[:number], left, *self.queues[number + 1 :])
        after = dataclasses.replace(self, queues=queues, number=number, generator=generator.get_state())
        return queue[: self.batch_size], after


@dataclass(frozen=True)
class FixedMinibatchSampler:
    """Minibatches that stay the same, as SAG needs them; each once an epoch, in a new order each epoch.

    `number` is that of the latest, `queue` the numbers of those that are left of the epoch.
    """

    parts: tuple[Tensor, ...]
    queue: tuple[int, ...]
    number: int
    generator: Tensor

    @classmethod
    def of(cls, indices: Tensor, batch_size: int, generator: torch.Generator) -> FixedMinibatchSampler:
        """All `indices` (n,), shuffled once and split into the fewest parts of at most `batch_size`."""
        shuffled = indices[torch.randperm(len(indices), generator=generator)]
        parts = torch.tensor_split(shuffled, -(-len(indices) // batch_size))
        return cls(tuple(parts), (), 0, generator.get_state())

    @property
    def folds(self) -> int:
        """These minibatches are of no folds."""
        return 1

    @property
    def n_batches(self) -> int:
        """Number of minibatches."""
        return len(self.parts)

    def next(self) -> tuple[Tensor, FixedMinibatchSampler]:
        """Indices of the next minibatch, int64, and the sampler after it, whose `number` says which it is."""
        queue, generator = self.queue, generator_at(self.generator)
        if not queue:
            queue = tuple(torch.randperm(self.n_batches, generator=generator).tolist())
        after = dataclasses.replace(self, queue=queue[1:], number=queue[0], generator=generator.get_state())
        return self.parts[queue[0]], after
