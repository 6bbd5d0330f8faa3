"""Methods that follow gradients: any torch optimiser, on the mean NLL plus the prior's part of one image."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.map_prior import ExponentialCubicPrior
from hoarfrost.optim.registry import Facts
from hoarfrost.optim.sag import SAG
from hoarfrost.optim.third_party import find_method
from hoarfrost.reconstruction.starts.method import Ground, Minibatch, StepReport


@dataclass(frozen=True)
class Objective:
    """The mean NLL and, added to it, −log p(V) / n_images of a prior on the volume."""

    prior: ExponentialCubicPrior
    n_images: int

    def __call__(self, band: BandModel, volume: Tensor, images: WhitenedImages) -> tuple[Tensor, Tensor]:
        """NLL and objective of a volume (box, box, box), both differentiable scalars."""
        nll = band.nll(volume, images)
        return nll, nll + self.prior.negative_log(volume) / self.n_images


@dataclass(frozen=True)
class Descent:
    """How a gradient method goes down: its name for `optim.third_party`, rate, what it may know, and the objective."""

    name: str
    rate: float
    facts: Facts
    objective: Objective

    def optimiser(self, parameter: torch.nn.Parameter) -> torch.optim.Optimizer:
        """A torch optimiser of that map."""
        return find_method(self.name).build([parameter], self.rate, self.facts)


@final
@dataclass(frozen=True)
class GradientMethod:
    """A gradient method and where it is: the map (box, box, box), and what its torch `optimiser` remembers."""

    descent: Descent
    volume: Tensor
    optimiser: dict[str, Any]
    step_size: float

    @classmethod
    def begin(cls, ground: Ground, volume: Tensor, descent: Descent) -> GradientMethod:
        """From a map (box, box, box), cut off by its support."""
        start = volume * ground.support
        optimiser = descent.optimiser(torch.nn.Parameter(start))
        return cls(descent, start, optimiser.state_dict(), _step_size(optimiser))

    def step(self, ground: Ground, minibatch: Minibatch) -> tuple[GradientMethod, StepReport]:
        """One step; the map stays inside its support."""
        parameter = torch.nn.Parameter(self.volume)
        optimiser = self.descent.optimiser(parameter)
        optimiser.load_state_dict(_with_numbers(self.optimiser))
        report = descend(optimiser, parameter, ground, minibatch, self.descent.objective)
        after = dataclasses.replace(
            self, volume=parameter.detach(), optimiser=optimiser.state_dict(), step_size=_step_size(optimiser)
        )
        return after, report

    def solved(self, ground: Ground) -> GradientMethod:
        """The map is always there."""
        return self

    @property
    def volumes(self) -> Tensor:
        """The map, (1, box, box, box)."""
        return self.volume[None]

    def shown(self, ground: Ground) -> Tensor:
        """The same."""
        return self.volume[None]

    @property
    def log_shares(self) -> Tensor:
        """One class holds all images."""
        return torch.full((1,), -math.log(1), dtype=torch.float64)

    @property
    def is_warm(self) -> bool:
        """Noise is taken for what it is."""
        return False

    def sized(self, size: float) -> GradientMethod:
        """The methods have schedules of their own."""
        return self

    def judged(self, gain: float) -> tuple[GradientMethod, bool]:
        """It keeps no map but the current one."""
        return self, False

    def at_best(self) -> tuple[GradientMethod, float | None]:
        """It goes nowhere."""
        return self, None


def descend(
    optimiser: torch.optim.Optimizer,
    parameter: torch.nn.Parameter,
    ground: Ground,
    minibatch: Minibatch,
    objective: Objective,
) -> StepReport:
    """One step of an optimiser of a map (box, box, box), which stays inside its support."""
    part = len(minibatch.images) / minibatch.n_images
    found: list[float] = []

    def closure() -> Tensor:
        optimiser.zero_grad()
        means = torch.stack(objective(ground.band, parameter * ground.support, minibatch.images)) * part
        torch.autograd.backward(means[1])
        assert parameter.grad is not None
        sums = means.detach()
        ground.team.sum_(parameter.grad, sums)
        found.append(float(sums[0]))
        return sums[1]

    if isinstance(optimiser, SAG):
        optimiser.take(minibatch.number)
    optimiser.step(closure)  # type: ignore[arg-type]  # torch wants a float, and takes a tensor
    # Gradients are symmetric, but steps scaled voxel by voxel are so only as far as the grid is.
    moved = parameter.detach()
    with torch.no_grad():
        parameter.copy_(ground.team.once(lambda: ground.band.group(moved), moved))
    return StepReport(found[0], None, len(found) * minibatch.n_images)


def _step_size(optimiser: torch.optim.Optimizer) -> float:
    """η of the next step, in the method's units."""
    size = getattr(optimiser, "step_size", None)
    return float(optimiser.param_groups[0].get("lr", math.nan) if size is None else size)


def _with_numbers(optimiser: dict[str, Any]) -> dict[str, Any]:
    """A torch optimiser's state, whose parameters are numbers again where a checkpoint made texts of them."""
    return {**optimiser, "state": {int(number): of_one for number, of_one in optimiser["state"].items()}}
