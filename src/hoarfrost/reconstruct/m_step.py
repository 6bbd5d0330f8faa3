"""The M-step: the best map given averaged statistics, min over V of  Vᵀ T V − 2 bᵀ V + μ |V|², V ≥ 0, in a support.

T is the exact normal operator, a convolution, so gridding and the band edge need no correction. The problem is solved
by conjugate gradients, preconditioned by the inverse of T's diagonal in Fourier space; voxels that turn negative are
then fixed at zero and the rest is solved once more (projected conjugate gradients with one change of the active set).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.model.slices import apply_normal, transform_normal_kernel

# μ as a share of the largest curvature. On 300 images, 1e-4 and 1e-5 let the map grow and fitted the noise faster.
RIDGE = 1e-3
ITERATIONS = 12
TOLERANCE = 1e-3


@dataclass(frozen=True)
class MStep:
    """Solves for the map inside `support` (box, box, box), ones and zeros; start from the current one.

    `positive` keeps the map from turning negative, without which random starts fit noise. A density cut off at the band
    limit has negative lobes, though, so that many images are explained a little better without.
    """

    support: Tensor
    positive: bool = True
    ridge: float = RIDGE
    iterations: int = ITERATIONS

    def __call__(self, statistics: tuple[Tensor, ...], current: Tensor) -> Tensor:
        """The map that averaged (b (box,)³, kernel of T (2 box,)³) ask for: real (box, box, box)."""
        linear, kernel = statistics
        spectrum = transform_normal_kernel(kernel)
        ridge = self.ridge * spectrum.max()
        # Every second frequency of the doubled box is one of the box.
        curvature = spectrum[::2, ::2, ::2].clamp(min=0) + ridge

        def solve(start: Tensor, free: Tensor) -> Tensor:
            return conjugate_gradients(
                lambda v: free * apply_normal(spectrum, v) + ridge * v,
                free * linear,
                start * free,
                lambda v: free * torch.fft.irfftn(torch.fft.rfftn(v) / curvature, s=v.shape),
                iterations=self.iterations,
            )

        volume = solve(current, self.support)
        if not self.positive:
            return volume
        free = self.support * (volume > 0)
        return solve(volume, free).clamp(min=0)


def conjugate_gradients(
    operator: Callable[[Tensor], Tensor],
    right_side: Tensor,
    start: Tensor,
    precondition: Callable[[Tensor], Tensor],
    *,
    iterations: int,
    tolerance: float = TOLERANCE,
) -> Tensor:
    """Preconditioned conjugate gradients for a symmetric positive definite operator (Hestenes & Stiefel 1952).

    Stops when the residual is below `tolerance` times the right side. All tensors have one shape.
    """
    x = start
    residual = right_side - operator(x)
    z = precondition(residual)
    direction = z
    product = (residual * z).sum()
    goal = tolerance * right_side.norm()
    for _ in range(iterations):
        if residual.norm() <= goal:
            break
        image = operator(direction)
        length = product / (direction * image).sum().clamp(min=1e-30)
        x = x + length * direction
        residual = residual - length * image
        z = precondition(residual)
        product, previous = (residual * z).sum(), product
        direction = z + (product / previous.clamp(min=1e-30)) * direction
    return x
