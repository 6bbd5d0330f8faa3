"""The prior of Punjani & Brubaker: exponential for positive voxels, cubic for negative ones.

−log p(V_v) = λ₊ V_v  for V_v ≥ 0,    λ₋ |V_v|³  for V_v < 0      (up to a constant)
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ExponentialCubicPrior:
    """Sparse and almost positive maps. λ₊ is per unit of the map, λ₋ per unit cubed."""

    lambda_positive: float = 1e-4
    lambda_negative: float = 1e-4

    def negative_log(self, volume: Tensor) -> Tensor:
        """−log p(V), a differentiable scalar."""
        positive, negative = volume.clamp(min=0), volume.clamp(max=0)
        return self.lambda_positive * positive.sum() + self.lambda_negative * negative.abs().pow(3).sum()

    def curvature(self, volume: Tensor) -> Tensor:
        """The diagonal of the Hessian of −log p(V), which has no other terms: 6 λ₋ |V_v| for V_v < 0, else 0."""
        return 6 * self.lambda_negative * (-volume).clamp(min=0)

    def on_grid(self, ratio: float) -> "ExponentialCubicPrior":
        """The same prior for a volume resampled onto `ratio` times as many voxels a side, its Fourier transform kept.

        There a voxel holds the sum of ratio⁻³ fine ones, so that λ₊ stays and λ₋ becomes λ₋ ratio⁶.
        """
        return ExponentialCubicPrior(self.lambda_positive, self.lambda_negative * ratio**6)
