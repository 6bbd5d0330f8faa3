"""Folds of the particles, so that each is seen against a map that it has no part in.

A map holds some of the noise of each image that it is made of, at the pose that the image was in. Seen against that map
the image finds this pose again, right or wrong: with h = c² / Σ_j c_j² the image's share in the map at a coefficient,
the match there rises by about 2 h |y|², in all by so much as that a few hundred images to a half tell wrong poses at a
probability of 0.99 and hardly leave them. So each half of the particles is dealt into folds, and those of a fold are
seen against the map of the other folds (cross-fitting). Statistics are sums: to leave a fold out takes one more M-step
and no other visit of a particle.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.model.slices.operator import even_of_half, half_of_even
from hoarfrost.reconstruction.state.checkpoints import State

# Of each half. The map that a particle is seen against is of this share of them less, and so much noisier.
FOLDS = 4

Quadratic = tuple[Tensor, Tensor]
"""What a map is solved for from: b (box,)³ and kernel of T (2 box,)³."""


@final
class Folds:
    """The `half` and the `fold` of it that each of n particles is dealt to, (n,) int64."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        dealt = torch.randperm(n, generator=generator)
        self.half, self.fold = dealt % 2, dealt // 2 % FOLDS

    def portions(self, members: Tensor, most: int) -> list[tuple[int, int, Tensor]]:
        """Particles `members` (m,) half by half and fold by fold, so many at once at most."""
        found = []
        for half in range(2):
            for fold in range(FOLDS):
                own = members[(self.half[members] == half) & (self.fold[members] == fold)]
                found += [(half, fold, some) for some in torch.split(own, most) if len(some)]
        return found


@final
class FoldSums:
    """Statistics of the M-step of each half, fold and class, added up portion by portion; `portions` counts these.

    Of kernels, which are even, half is kept.
    """

    def __init__(self) -> None:
        self.portions = 0
        # Those of no fold's particles yet are not there.
        self._of: dict[tuple[int, int], list[Quadratic]] = {}

    def add(self, half: int, fold: int, of_classes: list[Quadratic]) -> None:
        """Add those of a portion, of each class."""
        kept = [(linear, half_of_even(kernel)) for linear, kernel in of_classes]
        before = self._of.get((half, fold))
        if before is not None:
            kept = [_sum([a, b]) for a, b in zip(before, kept, strict=True)]
        self._of[half, fold] = kept
        self.portions += 1

    def of_half(self, half: int, of_class: int) -> Quadratic:
        """All of a half."""
        linear, kernel = _sum([sums[of_class] for (h, _), sums in self._of.items() if h == half])
        return linear, even_of_half(kernel)

    def without(self, half: int, fold: int, of_class: int) -> Quadratic:
        """Those of a half without one of its folds, unless there is no other."""
        others = [sums[of_class] for (h, f), sums in self._of.items() if h == half and f != fold]
        if not others:
            return self.of_half(half, of_class)
        linear, kernel = _sum(others)
        return linear, even_of_half(kernel)

    def state(self) -> State:
        """All there is, for `restore`."""
        return {"portions": self.portions, "of": [[*key, sums] for key, sums in self._of.items()]}

    def restore(self, state: State) -> None:
        """Go on from where another one was."""
        self.portions = state["portions"]
        self._of = {(half, fold): [(b, kernel) for b, kernel in sums] for half, fold, sums in state["of"]}


def in_all_folds(volumes: Tensor) -> Tensor:
    """Maps (C, box, box, box) that all folds begin with: (2, folds, C, box, box, box)."""
    return volumes.repeat(2, FOLDS, 1, 1, 1, 1)


def common(volumes: Tensor) -> Tensor:
    """The maps (C, box, box, box) of all folds and halves: the mean of those that leave each out in turn."""
    return volumes.mean(dim=(0, 1))


def resized(volumes: Tensor, box: int) -> Tensor:
    """Maps (…, n, n, n) on `box` voxels of the same length."""
    each = [fourier_resize(volume, box) for volume in volumes.flatten(0, -4)]
    return torch.stack(each).view(*volumes.shape[:-3], box, box, box)


def mean(parts: list[Quadratic]) -> Quadratic:
    """The mean of several statistics."""
    linear, kernel = _sum(parts)
    return linear / len(parts), kernel / len(parts)


def _sum(parts: list[Quadratic]) -> Quadratic:
    linear, kernel = parts[0]
    for other_linear, other_kernel in parts[1:]:
        linear, kernel = linear + other_linear, kernel + other_kernel
    return linear, kernel
