"""Stochastic gradient descent with the published schedule: w ← w − η₀ (1 + λt)^−0.75 g."""

from typing import final

from torch import Tensor

from hoarfrost.optim.base import DecayingOptimizer


@final
class ScheduledSGD(DecayingOptimizer):
    """Plain SGD (Robbins & Monro 1951) with base step `lr` and the published schedule."""

    def _change(self, gradient: Tensor) -> Tensor:
        return -self.step_size * gradient
