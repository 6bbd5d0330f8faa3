"""Hessian-free optimisation: a damped Newton step on each minibatch, by a few conjugate-gradient iterations.

    (H + λ I) d = −g,     H v ≈ (g(w + ε v) − g(w)) / ε     (directional finite differences)

λ follows the ratio of the loss's true change to the one the quadratic model predicts (Levenberg–Marquardt): × 2/3 above
¾, × 3/2 below ¼. A step that raises the loss is halved up to three times, and then taken back. Martens (2010), ICML.
"""

from collections.abc import Iterable
from typing import Any, final

import torch
from torch import Tensor

from hoarfrost.optim.base import Closure, FlatOptimizer

GOOD_RATIO = 0.75
POOR_RATIO = 0.25
LESS_DAMPING = 2 / 3
MORE_DAMPING = 3 / 2
LINE_SEARCH = (1.0, 0.5, 0.25, 0.125)


@final
class HessianFree(FlatOptimizer):
    """HF with `iterations` of conjugate gradients and initial `damping` λ in units of the curvature.

    A step takes 2 + `iterations` gradients of its minibatch, up to 3 more where it is too long, fewer where CG meets
    negative curvature and stops, as it may: the marginal likelihood is not convex. `lr` scales d, 1 in the source.
    """

    def __init__(self, params: Iterable[Tensor], *, damping: float, lr: float = 1.0, iterations: int = 5) -> None:
        super().__init__(params, lr=lr, damping=damping, iterations=iterations)

    @property
    def damping(self) -> float:
        """λ of the next step."""
        return float(self._memory.get("damping", self._group["damping"]))

    def _step(self, closure: Closure) -> Any:
        loss, gradient = self._evaluate(closure)
        if gradient is None:
            return loss
        point = self._point()
        solved = self._solve(closure, point, gradient)
        if solved is None:
            self._go_to(point)
            return loss
        direction, predicted = solved
        change = 0.0
        ratio = 0.0
        for length in LINE_SEARCH:
            self._go_to(point + length * self.step_size * direction)
            reached, beyond = self._evaluate(closure)
            if beyond is None:
                self._go_to(point)
                return loss
            change = float(reached - loss)
            if length == 1 and predicted < 0:
                ratio = change / predicted
            if change <= 0:
                break
        if change > 0:
            self._go_to(point)
        factor = LESS_DAMPING if ratio > GOOD_RATIO else MORE_DAMPING if ratio < POOR_RATIO else 1.0
        self._memory["damping"] = self.damping * factor
        self._count()
        return loss

    def _solve(self, closure: Closure, point: Tensor, gradient: Tensor) -> tuple[Tensor, float] | None:
        """The step d and the change of loss that the damped quadratic predicts; None if a gradient was not finite."""
        direction = torch.zeros_like(gradient)
        residual = -gradient
        search = residual
        for _ in range(self._group["iterations"]):
            length = float(search.norm())
            if length == 0:
                break
            # Half of the digits for the difference, half for its error.
            epsilon = torch.finfo(point.dtype).eps ** 0.5 * (float(point.norm()) or 1.0) / length
            self._go_to(point + epsilon * search)
            _, nearby = self._evaluate(closure)
            if nearby is None:
                return None
            image = (nearby - gradient) / epsilon + self.damping * search
            curvature = search @ image
            if not bool(curvature > 0):
                break
            step = residual @ residual / curvature
            direction = direction + step * search
            following = residual - step * image
            search = following + (following @ following) / (residual @ residual) * search
            residual = following
        # For the iterates of CG from zero, dᵀ A d = dᵀ (−g − r), so the model needs no further product.
        predicted = gradient @ direction + 0.5 * direction @ (-gradient - residual)
        return direction, float(predicted)
