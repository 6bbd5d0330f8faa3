"""AdaGrad: w ← w − η g / √(Σ_t g_t²), a step of its own for every voxel.

Duchi, Hazan & Singer (2011), J. Mach. Learn. Res. 12, 2121 (the diagonal form). No schedule: the sum is one.
"""

from typing import final

from torch import Tensor

from hoarfrost.optim.base import FlatOptimizer


@final
class AdaGrad(FlatOptimizer):
    """Diagonal AdaGrad; `lr` is in units of the parameters, the length of the first step along each axis."""

    def _change(self, gradient: Tensor) -> Tensor:
        total = self._memory.get("sum_of_squares", 0) + gradient.square()
        self._memory["sum_of_squares"] = total
        # An axis that never had a gradient, outside the support, does not move.
        change: Tensor = -self.step_size * gradient / total.sqrt().clamp(min=1e-30)
        return change
