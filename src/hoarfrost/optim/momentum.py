"""Classical momentum: v ← μ v − η g(w),  w ← w + v.

Polyak (1964), USSR Comput. Math. Math. Phys. 4, 1; schedules of η and μ as published by Punjani & Brubaker.
"""

from typing import final

from torch import Tensor

from hoarfrost.optim.base import DecayingOptimizer
from hoarfrost.optim.schedules import published_momentum


@final
class Momentum(DecayingOptimizer):
    """Polyak's heavy ball with base step `lr`; η decays and μ grows by the published schedules.

    torch.optim.SGD multiplies the whole velocity by the current step, which differs where the step changes.
    """

    def _change(self, gradient: Tensor) -> Tensor:
        velocity = -self.step_size * gradient
        if "velocity" in self._memory:
            velocity += published_momentum(self.iteration) * self._memory["velocity"]
        self._memory["velocity"] = velocity
        return velocity
