"""Nesterov's accelerated gradient: v ← μ v − η g(w + μ v),  w ← w + v.

Nesterov (1983), Soviet Math. Dokl. 27, 372, in the form of Sutskever et al. (2013), ICML; published schedules of η, μ.
"""

from typing import Any, final

from hoarfrost.optim.base import Closure, DecayingOptimizer
from hoarfrost.optim.schedules import published_momentum


@final
class Nesterov(DecayingOptimizer):
    """Nesterov's method with base step `lr`: the gradient is taken where the velocity is about to lead.

    Between steps the parameters are w, not the point looked ahead to; the closure's loss is that of the latter.
    """

    def _step(self, closure: Closure) -> Any:
        point = self._point()
        coasting = published_momentum(self.iteration) * self._memory.get("velocity", point.new_zeros(()))
        self._go_to(point + coasting)
        loss, gradient = self._evaluate(closure)
        if gradient is None:
            self._go_to(point)
            return loss
        velocity = coasting - self.step_size * gradient
        self._memory["velocity"] = velocity
        self._go_to(point + velocity)
        self._count()
        return loss
