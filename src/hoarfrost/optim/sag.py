"""Stochastic average gradient: step along the mean of every minibatch's latest gradient.

    d ← d − y_b + g_b,   y_b ← g_b,   w ← w − η d / m        m minibatches seen so far

Schmidt, Le Roux & Bach (2017), Math. Program. 162, 83, over minibatches that stay the same from epoch to epoch.
"""

from collections.abc import Iterable
from typing import Any, final

import torch
from torch import Tensor

from hoarfrost.optim.base import Closure, FlatOptimizer


@final
class SAG(FlatOptimizer):
    """SAG with constant step `lr` over `n_batches` fixed minibatches; keeps a gradient of each.

    Say which minibatch comes next, by `take`, before each step. Memory is n_batches times that of the parameters.
    """

    def __init__(self, params: Iterable[Tensor], *, lr: float, n_batches: int) -> None:
        super().__init__(params, lr=lr, n_batches=n_batches)
        self.batch = 0

    def take(self, batch: int) -> None:
        """The next step is on minibatch number `batch`."""
        self.batch = batch

    def _step(self, closure: Closure) -> Any:
        if not 0 <= self.batch < self._group["n_batches"]:
            raise ValueError(f"batch {self.batch} is not one of {self._group['n_batches']}")
        return super()._step(closure)

    def _change(self, gradient: Tensor) -> Tensor:
        memory = self._memory
        if "latest" not in memory:
            memory["latest"] = gradient.new_zeros(self._group["n_batches"], len(gradient))
            memory["total"] = torch.zeros_like(gradient)
            memory["seen"] = []
        memory["total"] += gradient - memory["latest"][self.batch]
        memory["latest"][self.batch] = gradient
        if self.batch not in memory["seen"]:
            memory["seen"].append(self.batch)
        change: Tensor = -self.step_size * memory["total"] / len(memory["seen"])
        return change
