"""TONGA: natural gradient with a low-rank running covariance of the gradients.

    C_t = γ C_{t−1} + g_t g_tᵀ ≈ X Xᵀ,     d = λ (C_t + λ I)⁻¹ g_t = λ X (XᵀX + λ I)⁻¹ e,     w ← w − η_t d

with g_t the last column of X, e the last unit vector. X holds `rank` eigenvectors of the old C, scaled, and the
gradients since; every `refresh` steps the eigenvectors are found anew, from the small Gram matrix XᵀX.

Le Roux, Manzagol & Bengio (2008), Topmoumoute online natural gradient algorithm, NIPS 20. The factor λ gives d the
units of a gradient: along directions in which gradients hardly vary it is plain SGD, and never longer.
"""

from collections.abc import Iterable
from typing import Any, final

import torch
from torch import Tensor

from hoarfrost.optim.base import Closure, DecayingOptimizer


@final
class TONGA(DecayingOptimizer):
    """TONGA with base step `lr`, rank 20 refreshed every 20 iterations, and the published schedule.

    λ is `regulariser` times the mean eigenvalue of XᵀX, so it follows the scale of the gradients.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        rank: int = 20,
        refresh: int = 20,
        discount: float = 0.995,
        regulariser: float = 1.0,
    ) -> None:
        super().__init__(params, lr=lr, rank=rank, refresh=refresh, discount=discount, regulariser=regulariser)

    def _step(self, closure: Closure) -> Any:
        loss, gradient = self._evaluate(closure)
        if gradient is None or not bool(gradient.any()):
            return loss
        columns = gradient[:, None]
        if "columns" in self._memory:
            columns = torch.cat([self._memory["columns"] * self._group["discount"] ** 0.5, columns], dim=1)
        gram = (columns.T @ columns).to(torch.float64)
        damping = self._group["regulariser"] * gram.diagonal().mean()
        unit = torch.zeros(len(gram), dtype=gram.dtype, device=gram.device)
        unit[-1] = 1
        damped = gram + damping * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        direction = columns @ (damping * torch.linalg.solve(damped, unit)).to(columns.dtype)
        self._go_to(self._point() - self.step_size * direction)
        self._count()
        rank: int = self._group["rank"]
        if columns.shape[1] >= rank + self._group["refresh"]:
            # X U has orthogonal columns whose squared lengths are the eigenvalues: the largest are kept.
            _, vectors = torch.linalg.eigh(gram)
            columns = columns @ vectors[:, -rank:].to(columns.dtype)
        self._memory["columns"] = columns
        return loss
