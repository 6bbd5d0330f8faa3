"""Stochastic gradient descent with the published schedule: w ← w − η₀ (1 + λt)^−0.75 g."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

from torch import Tensor

from hoarfrost.optim.base import Closure, DecayingOptimizer


@final
class ScheduledSGD(DecayingOptimizer):
    """Plain SGD (Robbins & Monro 1951) with base step `lr` and the published schedule."""

    def __init__(self, params: Iterable[Tensor], *, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def _step(self, closure: Closure) -> Any:
        loss, gradient = self._evaluate(closure)
        if gradient is not None:
            self._move(-self.step_size * gradient)
            self._count()
        return loss
