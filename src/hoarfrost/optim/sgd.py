"""Stochastic gradient descent with the published schedule: V ← V − η₀ (1 + λt)^−0.75 ∇."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hoarfrost.optim.schedules import published_decay


class ScheduledSGD(Optimizer):
    """Plain SGD with base step `lr` and the published schedule. A gradient that is not finite is skipped."""

    def __init__(self, params: Iterable[Tensor], *, lr: float) -> None:
        super().__init__(params, {"lr": lr, "iteration": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One minibatch: `closure()` computes the gradient and returns the loss."""
        if closure is None:
            raise ValueError("ScheduledSGD needs a closure that computes the gradient")
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            if not all(bool(g.isfinite().all()) for g in gradients):
                continue
            step_size = group["lr"] * published_decay(group["iteration"])
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=step_size)
            group["iteration"] += 1
        return loss

    @property
    def step_size(self) -> float:
        """η of the next step."""
        group = self.param_groups[0]
        return float(group["lr"] * published_decay(group["iteration"]))
