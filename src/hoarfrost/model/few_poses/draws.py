"""Poses that stand for the posteriors of images."""

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from hoarfrost.maths.rows import Rows

# Numbers of a pose: three angles, two shifts.
POSE_SIZE = 5


@dataclass(frozen=True)
class Draws(Rows):
    """Poses that stand for the posteriors of b images, m in all, each with its share γ of its image's posterior.

    `image` (m,), `rotations` (m, 3, 3), `shifts_px` (m, 2), `share` (m,); the shares of an image sum to 1.
    """

    image: Tensor
    rotations: Tensor
    shifts_px: Tensor
    share: Tensor

    def by_image(self, n: int) -> "list[Draws]":
        """Those of each of n images, in order."""
        order = self.image.argsort(stable=True)
        ends = self.image.bincount(minlength=n).cumsum(0).tolist()
        return [self[order[(ends[i - 1] if i else 0) : ends[i]]] for i in range(n)]

    def weighted(self, weight: Tensor) -> "Draws":
        """The same, an image's shares summing to its weight; `weight` is (b,)."""
        return dataclasses.replace(self, share=self.share * weight.to(self.share)[self.image])
