"""What particles gain by optics that were fitted without them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

# A fit that chooses among dozens of deviations may gain a little by chance; others lose a little by chance.
SURE_ERRORS_OF_CHOSEN, SURE_ERRORS = 5.0, 3.0
# More particles are looked at where some gain by so many errors.
PROMISING_ERRORS = 2.0


@dataclass(frozen=True)
class Gain:
    """A gain in nats an image, its `mean` and its `error`; `is_chosen` says that it is the largest of many."""

    mean: float
    error: float
    is_chosen: bool = True

    @classmethod
    def none(cls) -> Gain:
        """Of optics as they are told."""
        return cls(0.0, 0.0)

    @classmethod
    def of(cls, each: Tensor) -> Gain:
        """From the gain of each image (n,)."""
        return cls(float(each.mean()), float(each.std()) / math.sqrt(len(each)))

    @property
    def is_sure(self) -> bool:
        """Whether it is no chance."""
        return self.mean > (SURE_ERRORS_OF_CHOSEN if self.is_chosen else SURE_ERRORS) * self.error

    @property
    def is_promising(self) -> bool:
        """Whether more particles may make it sure."""
        return self.mean > PROMISING_ERRORS * self.error

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.error:.2f}"
