"""Online expectation–maximisation as a torch optimiser: running averages of statistics, and a solve each step.

    s̄ ← (1 − ρ) s̄ + ρ s(minibatch; V)          V ← argmax of the expected complete log-likelihood under s̄

Cappé & Moulines (2009), J. R. Stat. Soc. B 71, 593. For a quadratic with curvature T a step moves V by ρ T⁻¹ times
the gradient: ρ is the only step size, and it has no units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Statistics = tuple[Tensor, ...]


class OnlineEM(Optimizer):
    """Averages the statistics that the closure returns, and sets the parameter to what `solve` makes of them.

    `solve(statistics, current)` returns the new value of the one parameter. `lr` is ρ; the first steps use
    ρ_t = max(lr, (t + 1)^−`decay`) so that they forget their start. A step whose statistics are not finite
    leaves parameter and state as they were.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        solve: Callable[[Statistics, Tensor], Tensor],
        *,
        lr: float = 0.3,
        decay: float = 0.25,
        warm_up: int = 100,
    ) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "warm_up": warm_up})
        if len(self.param_groups) != 1 or len(self.param_groups[0]["params"]) != 1:
            raise ValueError("OnlineEM optimises one parameter")
        self.solve = solve

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One minibatch: `closure()` returns (loss, statistics); returns the loss."""
        if closure is None:
            raise ValueError("OnlineEM needs a closure that returns the loss and the statistics")
        loss, fresh = closure()
        if not all(bool(s.isfinite().all()) for s in fresh):
            return loss
        group = self.param_groups[0]
        parameter = group["params"][0]
        state = self.state[parameter]
        step = state.get("step", 0)
        if step == 0:
            state["statistics"] = tuple(s.clone() for s in fresh)
        else:
            rho = self.step_size
            state["statistics"] = tuple(
                torch.lerp(old, new, rho) for old, new in zip(state["statistics"], fresh, strict=True)
            )
        state["step"] = step + 1
        solution = self.solve(state["statistics"], parameter)
        if bool(solution.isfinite().all()):
            parameter.copy_(solution)
        return loss

    @property
    def step_size(self) -> float:
        """ρ of the next step."""
        group = self.param_groups[0]
        step = self.state[group["params"][0]].get("step", 0)
        early = (step + 1) ** -group["decay"] if step < group["warm_up"] else 0.0
        return float(max(group["lr"], early))

    @property
    def statistics(self) -> Statistics | None:
        """The running averages, None before the first step."""
        found: Statistics | None = self.state[self.param_groups[0]["params"][0]].get("statistics")
        return found

    def start_from(self, statistics: Statistics, step: int) -> None:
        """Go on from statistics of an earlier optimiser, `step` minibatches old."""
        self.state[self.param_groups[0]["params"][0]].update(statistics=statistics, step=step)
