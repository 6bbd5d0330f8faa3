"""Online expectation–maximisation as a torch optimiser: running averages of statistics, and a solve each step.

    s̄ ← (1 − ρ) s̄ + ρ s(minibatch; V)          V ← argmax of the expected complete log-likelihood under s̄

Cappé & Moulines (2009), J. R. Stat. Soc. B 71, 593. For a quadratic with curvature T a step moves V by ρ T⁻¹ times
the gradient: ρ is the only step size, and it has no units.

Data that come again and again find themselves in s̄. So they are dealt into folds that take turns, each with an average
of its own, and those of one fold can be judged by the others (cross-fitting).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Statistics = tuple[Tensor, ...]


class OnlineEM(Optimizer):
    """Averages the statistics that the closure returns, and sets the parameter to what `solve` makes of them.

    `solve(statistics, current)` returns the new value of the one parameter; without it a step only averages. `lr` is ρ;
    the first steps use ρ_t = max(lr, (t + 1)^−`decay`), so that they forget their start. A step whose statistics are
    not finite leaves parameter and state as they were.

    `fold` is the one of `folds` whose statistics the next closure returns. Its average then forgets as much as folds
    steps would, 1 − (1 − ρ)^folds.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        solve: Callable[[Statistics, Tensor], Tensor] | None,
        *,
        lr: float = 0.3,
        decay: float = 0.25,
        warm_up: int = 100,
        folds: int = 1,
        fold: int = 0,
    ) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "warm_up": warm_up})
        if len(self.param_groups) != 1 or len(self.param_groups[0]["params"]) != 1:
            raise ValueError("OnlineEM optimises one parameter")
        self.solve = solve
        self.folds = folds
        self.fold = fold

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One minibatch: `closure()` returns (loss, statistics); returns the loss."""
        if closure is None:
            raise ValueError("OnlineEM needs a closure that returns the loss and the statistics")
        loss, fresh = closure()
        if not all(bool(s.isfinite().all()) for s in fresh):
            return loss
        parameter = self.param_groups[0]["params"][0]
        state = self.state[parameter]
        averages = self.averages
        old = averages[self.fold]
        if old is None:
            averages[self.fold] = tuple(s.clone() for s in fresh)
        else:
            rho = 1 - (1 - self.step_size) ** self.folds
            averages[self.fold] = tuple(torch.lerp(a, b, rho) for a, b in zip(old, fresh, strict=True))
        state["averages"] = averages
        state["step"] = state.get("step", 0) + 1
        if self.solve is not None and (statistics := self.statistics) is not None:
            solution = self.solve(statistics, parameter)
            if bool(solution.isfinite().all()):
                parameter.copy_(solution)
        return loss

    @property
    def step_size(self) -> float:
        """ρ of the next step."""
        group = self.param_groups[0]
        early = (self.n_steps + 1) ** -group["decay"] if self.n_steps < group["warm_up"] else 0.0
        return float(max(group["lr"], early))

    @property
    def n_steps(self) -> int:
        """Steps taken so far."""
        return int(self.state[self.param_groups[0]["params"][0]].get("step", 0))

    @property
    def averages(self) -> list[Statistics | None]:
        """The running averages of the folds, None before the first step of each."""
        kept = self.state[self.param_groups[0]["params"][0]].get("averages", [None] * self.folds)
        return [None if of_fold is None else tuple(of_fold) for of_fold in kept]

    @property
    def statistics(self) -> Statistics | None:
        """The running averages of all folds, None before the first step."""
        return _mean(self.averages)

    def without(self, fold: int) -> Statistics | None:
        """Those of all folds but one, None before the first step of another."""
        averages = self.averages
        return _mean(averages[:fold] + averages[fold + 1 :])

    def start_from(self, averages: Sequence[Statistics | None], step: int) -> None:
        """Go on from the averages of an earlier optimiser with as many folds, `step` minibatches old."""
        self.state[self.param_groups[0]["params"][0]].update(averages=list(averages), step=step)


def _mean(averages: Sequence[Statistics | None]) -> Statistics | None:
    known = [of_fold for of_fold in averages if of_fold is not None]
    if len(known) < 2:
        return known[0] if known else None
    return tuple(torch.stack(parts).mean(dim=0) for parts in zip(*known, strict=True))
