"""Online L-BFGS: a quasi-Newton direction from gradient differences taken on one and the same minibatch.

    p = −B⁻¹ g(w; minibatch),   s = η_t p,   w ← w + s,   y = g(w + s; same minibatch) − g(w; minibatch) + λ s

B⁻¹ is the two-loop recursion over the last m pairs (s, y). It begins with the mean of sᵀy / yᵀy over all of them, as
each is noisy. Schraudolph, Yu & Günter (2007), AISTATS. Two gradients a step.
"""

from collections.abc import Iterable
from typing import Any, final

import torch
from torch import Tensor

from hoarfrost.optim.base import Closure, DecayingOptimizer


@final
class OnlineLBFGS(DecayingOptimizer):
    """oLBFGS with m = `memory` pairs. `lr` has no units; `first_step` is the length of the first, along −g.

    `damping` is λ. Pairs with sᵀy ≤ 0, along which the loss is not convex, are not kept.
    """

    def __init__(
        self, params: Iterable[Tensor], *, lr: float = 1.0, first_step: float, memory: int = 30, damping: float = 0.0
    ) -> None:
        super().__init__(params, lr=lr, first_step=first_step, memory=memory, damping=damping)

    def _step(self, closure: Closure) -> Any:
        loss, gradient = self._evaluate(closure)
        if gradient is None:
            return loss
        point = self._point()
        step = self.step_size * self._direction(gradient)
        self._go_to(point + step)
        _, moved = self._evaluate(closure)
        if moved is None:
            self._go_to(point)
            return loss
        difference = moved - gradient + self._group["damping"] * step
        if bool(step @ difference > 0):
            pairs = [*self._memory.get("pairs", []), (step, difference)]
            self._memory["pairs"] = pairs[-self._group["memory"] :]
        self._count()
        return loss

    def _direction(self, gradient: Tensor) -> Tensor:
        """−B⁻¹ g by the two-loop recursion."""
        pairs: list[tuple[Tensor, Tensor]] = self._memory.get("pairs", [])
        if not pairs:
            return gradient * -float(self._group["first_step"])
        direction: Tensor = -gradient
        alphas = []
        for s, y in reversed(pairs):
            alpha = (s @ direction) / (s @ y)
            direction = direction - alpha * y
            alphas.append(alpha)
        scales = [(s @ y) / (y @ y) for s, y in pairs]
        direction = direction * torch.stack(scales).mean()
        for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
            direction = direction + (alpha - (y @ direction) / (s @ y)) * s
        return direction
