"""Adam, torch's own, with the guard of every method here: a gradient that is not finite changes nothing.

Kingma & Ba (2015), ICLR.
"""

from typing import Any, final

import torch

from hoarfrost.optim.base import Closure


@final
class Adam(torch.optim.Adam):
    """torch.optim.Adam; `lr` is in units of the parameters."""

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One step on one minibatch; returns the closure's loss."""
        if closure is None:
            raise ValueError("Adam needs a closure that computes the gradient")
        with torch.enable_grad():
            loss = closure()
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if all(bool(g.isfinite().all()) for g in gradients):
            super().step()
        return loss
