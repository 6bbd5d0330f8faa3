"""The M-step: the best map given averaged statistics, min over V of  Vᵀ T V − 2 bᵀ V + μ |V|², V ≥ 0, in a support.

T is the exact normal operator, a convolution, so gridding and the band edge need no correction. The problem is solved
by conjugate gradients, preconditioned by the inverse of T's diagonal in Fourier space; voxels that turn negative are
then fixed at zero and the rest is solved once more (projected conjugate gradients with one change of the active set).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from hoarfrost.maths.fourier import radius_grid
from hoarfrost.maths.shells import filter_shells as filter_shells
from hoarfrost.maths.shells import shell_means, shells_of_half_spectrum
from hoarfrost.model.quadratic import Quadratic
from hoarfrost.model.slices.normal import SupportedNormal
from hoarfrost.model.slices.operator import transform_normal_kernel
from hoarfrost.parallel.threads import each, wide

Number = TypeVar("Number")

# μ as a part of the largest curvature. Weaker ridges let the map grow and fit the noise sooner.
RIDGE = 1e-3
ITERATIONS = 12
# From the map with a fold to the one without it: what changes there is right to 1 % at the band limit.
ITERATIONS_OF_FOLD = 6
TOLERANCE = 1e-3
# Voxels along a side of maps that are solved for at the same time: each takes 0.1 GB then, which grows as the cube.
LARGEST_AT_ONCE = 72
# An FSC is not trusted beyond these.
LEAST_FSC, MOST_FSC = 0.02, 0.999


@dataclass(frozen=True)
class Curvature:
    """What a normal operator T amounts to: `along` each wave inside a support (`mean_curvature`), and its `largest`.

    `total` is the kernel at the origin, the sum of all weights.
    """

    along: Tensor
    largest: float
    total: float

    @classmethod
    def of(cls, kernel: Tensor, support: Tensor) -> "Curvature":
        """That of a kernel (2m, 2m, 2m) and a support (n, n, n) up to m voxels wide."""
        with wide(kernel.numel()):
            largest = float(transform_normal_kernel(kernel).max())
            return cls(mean_curvature(kernel, support), largest, _total(kernel))

    def scaled_to(self, kernel: Tensor) -> "Curvature":
        """That of a kernel much like this one's, but for the sum of its weights."""
        scale = _total(kernel) / self.total if self.total else 1.0
        return Curvature(self.along * scale, self.largest * scale, _total(kernel))


def _total(kernel: Tensor) -> float:
    n = len(kernel) // 2
    return float(kernel[n, n, n])


@dataclass(frozen=True)
class MStep:
    """Solves for the map inside `support` (box, box, box), ones and zeros; start from the current one.

    `positive` keeps the map from turning negative, without which random starts fit noise. A density cut off at the band
    limit has negative lobes, though, so that many images are explained a little better without. `shell_ridge` (s,) is
    added to μ in each shell |k| = 0, 1, … `curvature` is that of statistics much like those to be solved for, but for
    their sum: it sets μ, and how fast a solution is found, and to make it takes longer than to solve.
    """

    support: Tensor
    positive: bool = True
    shell_ridge: Tensor | None = None
    curvature: Curvature | None = None
    iterations: int = ITERATIONS

    def of_fold(self, curvature: Curvature) -> "MStep":
        """What solves for maps without a fold, from the one with it, whose curvature is known."""
        return dataclasses.replace(self, curvature=curvature, iterations=ITERATIONS_OF_FOLD)

    def __call__(self, quadratic: Quadratic, current: Tensor) -> Tensor:
        """The map (box, box, box) that averaged statistics ask for."""
        with wide((2 * len(current)) ** 3):
            return self._solved(quadratic, current)

    def _solved(self, quadratic: Quadratic, current: Tensor) -> Tensor:
        kernel = quadratic.kernel
        normal = SupportedNormal(kernel, self.support)
        own = Curvature.of(kernel, self.support) if self.curvature is None else self.curvature.scaled_to(kernel)
        ridge = RIDGE * own.largest
        curvature = own.along + ridge
        shells = None
        if self.shell_ridge is not None:
            shells = self.shell_ridge[
                shells_of_half_spectrum(len(current), current.device).clamp(max=len(self.shell_ridge) - 1)
            ]
            curvature = curvature + shells

        def regularise(v: Tensor) -> Tensor:
            if shells is None:
                return ridge * v
            filtered: Tensor = torch.fft.irfftn(torch.fft.rfftn(v) * shells, s=v.shape)
            return ridge * v + filtered

        def solve(start: Tensor, free: Tensor) -> Tensor:
            return conjugate_gradients(
                lambda v: free * (normal(v) + regularise(v)),
                free * quadratic.linear,
                start * free,
                lambda v: free * torch.fft.irfftn(torch.fft.rfftn(v) / curvature, s=v.shape),
                iterations=self.iterations,
                least_curvature=ridge,
            )

        volume = solve(current, self.support)
        if not self.positive:
            return volume
        free = self.support * (volume > 0)
        return solve(volume, free).clamp(min=0)


def solve_each(solve: Callable[[Number], Tensor], numbers: Sequence[Number], box: int, device: torch.device) -> Tensor:
    """The maps of `box` voxels that `solve` gives for each of the numbers, stacked: a core has a map of its own.

    Cores that share a small map wait for each other most of the time. Large ones would not fit in memory side by side.
    """
    if box > LARGEST_AT_ONCE:
        return torch.stack([solve(number) for number in numbers])
    return torch.stack(each(solve, numbers, device))


def mean_curvature(kernel: Tensor, support: Tensor) -> Tensor:
    """e*ₖ S T S eₖ / |S|, the curvature along each wave inside the support S: real (n, n, n // 2 + 1), not negative.

    The sum over x of kernel (2m, 2m, 2m) · autocorrelation of S · cos(k·x), S taken for the ball of its volume. Without
    that taper the kernel's end rings, and shells where CTFs are small turn negative.
    """
    n, m = len(support), len(kernel) // 2
    diameter = 2 * float((3 * support.sum() / (4 * math.pi)) ** (1 / 3))
    distance = (radius_grid(2 * m, 3, support.device).to(kernel.dtype) / diameter).clamp_(max=1)
    tapered = kernel * (1 - 1.5 * distance + 0.5 * distance**3)
    # Every second frequency of a box twice as wide is one of the box: that of the kernel with its ends folded in.
    for axis in range(3):
        padding = [0, 0] * (2 - axis) + [n - m, n - m]
        doubled = torch.nn.functional.pad(tapered, padding)
        tapered = doubled.narrow(axis, n, n) + doubled.narrow(axis, 0, n)
    curvature: Tensor = torch.fft.rfftn(tapered).real
    return curvature.clamp(min=0)


def wiener_ridge(curvature: Tensor, fsc: Tensor) -> Tensor:
    """μ of each shell for the map of all particles, from the FSC of two half sets: (shells,).

    `curvature` (n, n, n // 2 + 1) is the `mean_curvature` of both together.

    With F the FSC of the halves, the signal over the noise in the map of all is 2 F / (1 − F), and the best linear
    estimate adds to the curvature its inverse times the shell's mean curvature (Scheres 2012, J. Struct. Biol. 180).
    Shell 0 is left free: it is one coefficient, whose "FSC" is a sign.
    """
    shells = shells_of_half_spectrum(len(curvature), curvature.device)
    fsc = fsc.to(curvature).clamp(LEAST_FSC, MOST_FSC)
    ridge = shell_means(curvature, shells)[: len(fsc)].to(curvature.dtype) * (1 - fsc) / (2 * fsc)
    ridge[0] = 0
    return ridge


def conjugate_gradients(
    operator: Callable[[Tensor], Tensor],
    right_side: Tensor,
    start: Tensor,
    precondition: Callable[[Tensor], Tensor],
    *,
    iterations: int,
    tolerance: float = TOLERANCE,
    least_curvature: float = 0.0,
) -> Tensor:
    """Preconditioned conjugate gradients for a symmetric positive definite operator (Hestenes & Stiefel 1952).

    Stops when the residual is below `tolerance` times the right side, or where the operator has less than its
    `least_curvature` along the next direction: a normal operator whose kernel was interpolated is positive to a few
    thousandths only, and steps there are as long as they are wrong. Tensors have one shape.
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
        curvature = (direction * image).sum()
        if not curvature > least_curvature * direction.square().sum():
            break
        length = product / curvature
        x = x + length * direction
        residual = residual - length * image
        z = precondition(residual)
        product, previous = (residual * z).sum(), product
        direction = z + (product / previous.clamp(min=1e-30)) * direction
    return x
