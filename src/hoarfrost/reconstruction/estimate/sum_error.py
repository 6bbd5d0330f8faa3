"""What the economies of refinement cost: its sums over few poses against thorough ones, in nats per image."""

from dataclasses import dataclass

from torch import Tensor

# A map is not moved by less; the quadrature of the first stages is wrong by as much (docs/mathematics.md).
BUDGET_NATS = 0.3


@dataclass(frozen=True)
class SumError:
    """log p(Ĩ | V) as a sweep finds it less that of a thorough search: mean over images and its standard error, nats.

    Negative where a sweep misses some of the posterior; points drawn at random make it a little so, too.
    """

    mean: float
    standard_error: float

    @staticmethod
    def of(found: Tensor, thorough: Tensor) -> "SumError":
        """From the log-evidence of each of n images, (n,) both, n > 1."""
        difference = found - thorough
        return SumError(float(difference.mean()), float(difference.std() / len(difference) ** 0.5))

    @property
    def exceeds_budget(self) -> bool:
        """Whether the sweep surely misses more than it may, by two standard errors."""
        return self.mean + 2 * self.standard_error < -BUDGET_NATS
