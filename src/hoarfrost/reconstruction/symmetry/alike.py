"""What was found of views that a map without symmetry makes alike, and how much better particles are explained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hoarfrost.symmetry.point_group import PointGroup

# Nats a particle, and standard errors.
LEAST_RISE, LEAST_STANDARD_ERRORS = 0.05, 3.0


@dataclass(frozen=True)
class Rise:
    """How much better particles are explained, in nats each, and the standard error."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, each: Tensor) -> Rise:
        """The mean over particles (n,)."""
        return cls(float(each.mean()), float(each.std() / len(each) ** 0.5))

    @property
    def is_sure(self) -> bool:
        """Whether it is more than its error, and worth something."""
        return self.mean > LEAST_RISE and self.mean > LEAST_STANDARD_ERRORS * self.standard_error

    def __neg__(self) -> Rise:
        return Rise(-self.mean, self.standard_error)

    def __str__(self) -> str:
        return f"{self.mean:z.2f} ± {self.standard_error:.2f} nats"


@dataclass(frozen=True)
class Alike:
    """What was found of views that the map makes alike: those of a `group`, C1 where there are none.

    `rise` is of the particles that an odd unit was not placed by, None where none was found. `told` is the share of
    particles with one view that is more likely than all others together. `is_shown` tells whether the map has the unit.
    """

    group: str = "C1"
    rise: Rise | None = None
    told: float = 0.0
    is_shown: bool = False

    @property
    def order(self) -> int:
        """The number of views that look alike."""
        return PointGroup(self.group).order

    def message(self, better: Rise | None = None) -> str:
        """What the user is told; `better` is how much better a new map explains particles, where it is kept."""
        nearly = f"The map is nearly {self.group}: "
        if self.rise is None:
            return f"{nearly}no difference between its {self.order} units was found; try --symmetry {self.group}"
        told = f"its {self.order} views look alike, and {self.told:.0%} of the particles tell theirs"
        shown = "" if better is None else f"; the new map, which shows it, explains particles better by {better}"
        return f"{nearly}{told}. One unit differs, by {self.rise} a particle{shown}"
