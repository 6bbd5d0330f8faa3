"""AdaGrad: w ← w − η g / √(Σ_t g_t²), a step of its own for every voxel.

Duchi, Hazan & Singer (2011), J. Mach. Learn. Res. 12, 2121 (the diagonal form). No schedule: the sum is one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

from torch import Tensor

from hoarfrost.optim.base import Closure, FlatOptimizer


@final
class AdaGrad(FlatOptimizer):
    """Diagonal AdaGrad; `lr` is in units of the parameters, the length of the first step along each axis."""

    def __init__(self, params: Iterable[Tensor], *, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def _step(self, closure: Closure) -> Any:
        loss, gradient = self._evaluate(closure)
        if gradient is not None:
            total = self._memory.get("sum_of_squares", 0) + gradient.square()
            self._memory["sum_of_squares"] = total
            # An axis that never had a gradient, outside the support, does not move.
            self._move(-self.step_size * gradient / total.sqrt().clamp(min=1e-30))
            self._count()
        return loss
