"""The two terms that a map is solved for from, and maps of several structures with their shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hoarfrost.maths.fourier import even_of_half, fourier_resize, half_of_even


@dataclass(frozen=True)
class Quadratic:
    """Vᵀ T V − 2 bᵀ V: `linear` b, real (…, box, box, box), and the `kernel` of T, real (…, 2 box, 2 box, 2 box).

    For maps that are empty but in the middle of their box the kernel need only be twice as wide as that.
    """

    linear: Tensor
    kernel: Tensor

    def __add__(self, other: Quadratic) -> Quadratic:
        """The sum of both."""
        return Quadratic(self.linear + other.linear, self.kernel + other.kernel)

    def __truediv__(self, n: float) -> Quadratic:
        """The quadratic of one of `n` images, say."""
        return Quadratic(self.linear / n, self.kernel / n)

    def __getitem__(self, of_class: int) -> Quadratic:
        """That of one of several classes, which come first among the dimensions."""
        return Quadratic(self.linear[of_class], self.kernel[of_class])

    def resized(self, box: int) -> Quadratic:
        """The same of each class (C, …) for maps of `box` voxels over the same length."""
        return Quadratic(fourier_resize(self.linear, box), fourier_resize(self.kernel, 2 * box))

    def halved(self) -> Quadratic:
        """With half of the kernel, which is even, to be kept in less memory."""
        return Quadratic(self.linear, half_of_even(self.kernel))

    def whole(self) -> Quadratic:
        """The one that `halved` made this of."""
        return Quadratic(self.linear, even_of_half(self.kernel))


def sum_of(parts: Sequence[Quadratic]) -> Quadratic:
    """The sum of one quadratic or more, in their order."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def mean_of(parts: Sequence[Quadratic]) -> Quadratic:
    """The mean of one quadratic or more."""
    return sum_of(parts) / len(parts)


@dataclass(frozen=True)
class Mixture:
    """Maps of C classes: `volumes` (C, box, box, box), and `log_shares` (C,) float64, the logs of their shares."""

    volumes: Tensor
    log_shares: Tensor

    def resized(self, box: int) -> Mixture:
        """The same maps on `box` voxels over the same length."""
        return Mixture(fourier_resize(self.volumes, box), self.log_shares)
