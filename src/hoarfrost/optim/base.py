"""What the gradient methods share: one flat vector of all parameters, one closure, and a guard against NaN."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import Optimizer

from hoarfrost.optim.schedules import published_decay

Closure = Callable[[], Any]
"""Computes the gradient of one minibatch's loss at the current parameters, leaves it in `.grad`, returns the loss."""


class FlatOptimizer(Optimizer):
    """A torch optimiser whose parameters form one vector w (n,), with its gradient g (n,) from a closure.

    The state is kept under the first parameter, so that `state_dict` and `load_state_dict` carry it. A step that
    meets a loss gradient which is not finite leaves parameters and state as they were.

    Raises ValueError for more than one parameter group.
    """

    def __init__(self, params: Iterable[Tensor], *, lr: float, **options: Any) -> None:
        super().__init__(params, {"lr": lr, **options})
        if len(self.param_groups) != 1:
            raise ValueError(f"{type(self).__name__} optimises one parameter group")

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One step on one minibatch; returns the closure's first loss."""
        if closure is None:
            raise ValueError(f"{type(self).__name__} needs a closure that computes the gradient")
        return self._step(closure)

    def _step(self, closure: Closure) -> Any:
        """Evaluate the closure as often as the method wants, and move the parameters: here once, by `_change`."""
        loss, gradient = self._evaluate(closure)
        if gradient is not None:
            self._go_to(self._point() + self._change(gradient))
            self._count()
        return loss

    def _change(self, gradient: Tensor) -> Tensor:
        """How far the parameters move, (n,), given g; methods with a `_step` of their own have none."""
        raise NotImplementedError

    @property
    def step_size(self) -> float:
        """η of the next step."""
        return float(self._group["lr"])

    @property
    def iteration(self) -> int:
        """Steps taken so far."""
        return int(self._memory.get("iteration", 0))

    @property
    def _group(self) -> dict[str, Any]:
        return self.param_groups[0]

    @property
    def _parameters(self) -> list[Tensor]:
        parameters: list[Tensor] = self._group["params"]
        return parameters

    @property
    def _memory(self) -> dict[str, Any]:
        memory: dict[str, Any] = self.state[self._parameters[0]]
        return memory

    def _count(self) -> None:
        self._memory["iteration"] = self.iteration + 1

    def _point(self) -> Tensor:
        """w, a copy."""
        return parameters_to_vector(self._parameters).clone()

    def _go_to(self, point: Tensor) -> None:
        """Set w."""
        vector_to_parameters(point, self._parameters)

    def _evaluate(self, closure: Closure) -> tuple[Any, Tensor | None]:
        """Loss and g at the current w; None in place of a g that is not finite. A missing gradient counts as zero."""
        with torch.enable_grad():
            loss = closure()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        gradient = parameters_to_vector(parts).clone()
        return loss, gradient if bool(gradient.isfinite().all()) else None


class DecayingOptimizer(FlatOptimizer):
    """A flat optimiser whose step `lr` shrinks by the published schedule, (1 + 0.01 t)^−0.75."""

    @property
    def step_size(self) -> float:
        """η of the next step."""
        return float(self._group["lr"]) * published_decay(self.iteration)
