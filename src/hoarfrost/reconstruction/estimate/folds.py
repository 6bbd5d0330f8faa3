"""Folds of the particles, so that each is seen against a map that it has no part in (cross-fitting).

A map holds some of the noise of each image that it is made of, at the pose that the image was in. Seen against that map
the image finds this pose again, right or wrong. So each half of the particles is dealt into folds, and those of a fold
are seen against the map of the other folds. Statistics are sums: to leave a fold out takes one more M-step and no other
visit of a particle. docs/mathematics.md has the size of the effect.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.model.quadratic import Quadratic, sum_of

# Folds per half. A particle is scored against a map of the other three, whose variance is 4/3 as large.
FOLDS = 4


@dataclass(frozen=True)
class Folds:
    """The `half` and the `fold` of it that each of n particles is dealt to, (n,) int64.

    Copies of an image go where the first one goes: halves that share images agree.
    """

    half: Tensor
    fold: Tensor

    @classmethod
    def deal(cls, n: int, generator: torch.Generator, first: Tensor | None = None) -> Folds:
        """Deal n particles at random; `first` (n,) tells the first copy of each one's image."""
        dealt = torch.randperm(n, generator=generator)
        if first is not None:
            dealt = dealt[first]
        return cls(dealt % 2, dealt // 2 % FOLDS)

    def portions(self, members: Tensor, most: int) -> list[tuple[int, int, Tensor]]:
        """Half, fold and particles, of `members` (m,): half by half, fold by fold, at most so many at once."""
        found = []
        for half in range(2):
            for fold in range(FOLDS):
                own = members[(self.half[members] == half) & (self.fold[members] == fold)]
                found += [(half, fold, some) for some in torch.split(own, most) if len(some)]
        return found


@dataclass(frozen=True)
class FoldMaps:
    """Maps of each half, without each of its folds, of each class: `volumes` (2, folds, C, box, box, box)."""

    volumes: Tensor

    @classmethod
    def alike(cls, volumes: Tensor) -> FoldMaps:
        """Maps (C, box, box, box) that all halves and folds begin with."""
        return cls(volumes.repeat(2, FOLDS, 1, 1, 1, 1))

    @classmethod
    def of_halves(cls, volumes: Tensor) -> FoldMaps:
        """Maps (2, C, box, box, box) that the folds of each half begin with."""
        return cls(volumes[:, None].repeat(1, FOLDS, 1, 1, 1, 1))

    @property
    def box(self) -> int:
        """Voxels along a side."""
        return int(self.volumes.shape[-1])

    @property
    def common(self) -> Tensor:
        """The maps (C, box, box, box) of all halves and folds: the mean of those that leave each out in turn."""
        return self.volumes.mean(dim=(0, 1))

    def of_half(self, half: int) -> Tensor:
        """The maps (C, box, box, box) of all folds of a half."""
        return self.volumes[half].mean(dim=0)

    def without(self, half: int, fold: int) -> Tensor:
        """The maps (C, box, box, box) of a half without one of its folds."""
        return self.volumes[half, fold]

    def resized(self, box: int) -> FoldMaps:
        """The same maps on `box` voxels over the same length."""
        return FoldMaps(fourier_resize(self.volumes, box))


@dataclass(frozen=True)
class FoldSum:
    """What the particles of one fold of one half add up to, of each class; kernels are halved."""

    half: int
    fold: int
    of_classes: tuple[Quadratic, ...]


@dataclass(frozen=True)
class FoldSums:
    """Statistics of the M-step of each half, fold and class, added up portion by portion; `portions` counts these."""

    portions: int = 0
    # Folds without a particle so far are not there.
    parts: tuple[FoldSum, ...] = ()

    def plus(self, half: int, fold: int, of_classes: list[Quadratic]) -> FoldSums:
        """With those of one more portion, of each class."""
        fresh = tuple(quadratic.halved() for quadratic in of_classes)
        parts = []
        is_new = True
        for part in self.parts:
            if (part.half, part.fold) == (half, fold):
                sums = tuple(before + now for before, now in zip(part.of_classes, fresh, strict=True))
                part = dataclasses.replace(part, of_classes=sums)
                is_new = False
            parts.append(part)
        if is_new:
            parts.append(FoldSum(half, fold, fresh))
        return FoldSums(self.portions + 1, tuple(parts))

    def of_half(self, half: int, of_class: int) -> Quadratic:
        """All of a half."""
        return sum_of([part.of_classes[of_class] for part in self.parts if part.half == half]).whole()

    def of_first(self, folds: int, half: int, of_class: int) -> Quadratic | None:
        """Those of the first folds of a half, so many; None where they hold no particle."""
        parts = [part.of_classes[of_class] for part in self.parts if part.half == half and part.fold < folds]
        return sum_of(parts).whole() if parts else None

    def without(self, half: int, fold: int, of_class: int) -> Quadratic:
        """Those of a half without one of its folds, unless there is no other."""
        others = [part.of_classes[of_class] for part in self.parts if part.half == half and part.fold != fold]
        return sum_of(others).whole() if others else self.of_half(half, of_class)
