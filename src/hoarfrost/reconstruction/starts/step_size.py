"""Base steps without hands: from the curvature of the objective, refined by a short search where a method needs it.

A method whose units are those of a gradient step takes 1/λ_max. For any other, whatever its units, the first step from
the start is probed: with d = Δw/η its direction, g the gradient and H the expected Hessian,

    η = −gᵀd / dᵀH d

is the minimum of the quadratic along it. The search then tries a third and three times that, and goes on in the better
direction, by what a few minibatches from a subset of the training images reach from the same start, judged by others
of that subset.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.slices.operator import apply_normal, transform_normal_kernel
from hoarfrost.optim.registry import Facts, MethodSpec
from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.starts.curvature import expected_kernel
from hoarfrost.reconstruction.starts.gradient import Objective, descend
from hoarfrost.reconstruction.starts.method import Ground, Minibatch

SEARCH_FACTOR = 3.0
LARGEST_FACTOR = 27.0
SEARCH_STEPS = 20
PROBE_RATE = 1e-6


@dataclass(frozen=True)
class Start:
    """Where a stage begins: its model, the map's support, the first map, and a subset of the training images.

    All processes of `team` have the whole subset.
    """

    band: BandModel
    support: Tensor
    volume: Tensor
    sample: WhitenedImages
    objective: Objective
    team: Team = dataclasses.field(default_factory=Team)


@dataclass(frozen=True)
class ChosenRate:
    """A base rate; `factor` is what the search multiplied it by, `tried` the objective at each factor tried.

    `image_gradients` were spent on finding it.
    """

    base: float
    factor: float
    tried: dict[float, float]
    image_gradients: int

    @property
    def rate(self) -> float:
        """The rate to use."""
        return self.base * self.factor


def choose_rate(spec: MethodSpec, start: Start, facts: Facts) -> ChosenRate:
    """The base rate of a method, searched if it needs that."""
    base = base_rate(spec, start, facts)
    if not spec.search:
        return ChosenRate(base, 1.0, {}, 0)
    tried: dict[float, float] = {}
    spent = 0

    def attempt(factor: float) -> float:
        nonlocal spent
        if factor not in tried:
            tried[factor], gradients = _reached(spec, start, facts, base * factor)
            spent += gradients
        return tried[factor]

    best = min((1 / SEARCH_FACTOR, 1.0, SEARCH_FACTOR), key=attempt)
    while best != 1.0 and 1 / LARGEST_FACTOR < best < LARGEST_FACTOR:
        further = best * SEARCH_FACTOR if best > 1 else best / SEARCH_FACTOR
        if not attempt(further) < tried[best]:
            break
        best = further
    return ChosenRate(base, best, tried, spent)


def base_rate(spec: MethodSpec, start: Start, facts: Facts) -> float:
    """The rate that the curvature gives, before any search."""
    return start.team.once_number(lambda: _base_rate(spec, start, facts))


def _base_rate(spec: MethodSpec, start: Start, facts: Facts) -> float:
    if spec.base_rate == "unit":
        return 1.0
    if spec.base_rate == "curvature":
        return 1 / facts.largest_curvature
    band, images = start.band, start.sample[: spec.batch_size]
    # In float64, so that a step of any length can be read off the parameter.
    parameter = torch.nn.Parameter(start.volume.to(torch.float64))
    optimiser = spec.build([parameter], PROBE_RATE, facts)
    gradients: list[Tensor] = []

    def closure() -> Tensor:
        optimiser.zero_grad()
        _, loss = start.objective(band, (parameter * start.support).to(band.dtype), images)
        torch.autograd.backward(loss)
        assert parameter.grad is not None
        gradients.append(parameter.grad.detach().clone())
        return loss.detach()

    optimiser.step(closure)  # type: ignore[arg-type]  # torch wants a float, and takes a tensor
    direction = (parameter.detach() - start.volume) / PROBE_RATE
    spectrum = transform_normal_kernel(expected_kernel(band, images))
    bent = 2 * apply_normal(spectrum, direction.to(band.dtype))
    curvature = float((direction * bent).sum())
    slope = float((gradients[0] * direction).sum())
    if not (slope < 0 < curvature and math.isfinite(curvature)):
        return 1 / facts.largest_curvature
    return -slope / curvature


def _reached(spec: MethodSpec, start: Start, facts: Facts, rate: float) -> tuple[float, int]:
    """Objective on a third of the sample after some steps on the rest, and the image gradients that it took.

    Judged by the images it learned from, a rate that fits their noise would look best.
    """
    n_seen = max(1, 2 * len(start.sample) // 3)
    seen, fresh = start.sample[:n_seen], start.sample[n_seen:]
    ground = Ground(start.band, start.support, start.team)
    parameter = torch.nn.Parameter(start.volume * start.support)
    optimiser = spec.build([parameter], rate, facts)
    n_batches = max(1, n_seen // spec.batch_size)
    spent = 0
    for step in range(SEARCH_STEPS):
        batch = step % n_batches
        images = seen[batch * spec.batch_size : (batch + 1) * spec.batch_size]
        minibatch = Minibatch(start.team.share(images), batch, len(images))
        spent += descend(optimiser, parameter, ground, minibatch, start.objective).image_gradients
        if not bool(parameter.isfinite().all()):
            return math.inf, spent
    own = start.team.share(fresh)
    with torch.no_grad():
        _, value = start.objective(start.band, parameter * start.support, own)
    value *= len(own) / len(fresh)
    start.team.sum_(value)
    reached = float(value)
    return (reached if math.isfinite(reached) else math.inf), spent + len(fresh)
