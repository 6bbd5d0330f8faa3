"""The optimisation methods, each as a thing that takes a minibatch and moves the map of one stage.

`auto` is in `hoarfrost.reconstruction.starts.online_em`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.map_prior import ExponentialCubicPrior
from hoarfrost.optim.registry import Facts, MethodSpec
from hoarfrost.optim.sag import SAG
from hoarfrost.parallel.team import Team


@dataclass(frozen=True)
class StepReport:
    """Mean NLL of the minibatch before the step, and the median effective number of poses (None if not known).

    `image_gradients` counts each image each time that its gradient was taken.
    """

    nll: float
    ess: float | None
    image_gradients: int


@dataclass(frozen=True)
class Objective:
    """The mean NLL and, added to it, −log p(V) / n_images of a prior on the volume."""

    prior: ExponentialCubicPrior
    n_images: int

    def __call__(self, band: BandModel, volume: Tensor, images: WhitenedImages) -> tuple[Tensor, Tensor]:
        """NLL and objective of a volume (box, box, box), both differentiable scalars."""
        nll = band.nll(volume, images)
        return nll, nll + self.prior.negative_log(volume) / self.n_images


class StageMethod(ABC):
    """One method at one band limit. `volume` is the map (box, box, box), already inside `support`.

    A method for several structures has `volumes` (C, box, box, box), others one. Every process of `team` has the same
    map and steps with its share of each minibatch. What it remembers of earlier steps its `optimiser` knows.
    """

    optimiser: torch.optim.Optimizer

    def __init__(self, band: BandModel, support: Tensor, volume: Tensor, team: Team | None = None) -> None:
        self.band = band
        self.support = support
        self.team = team or Team()
        self.parameter = torch.nn.Parameter(volume * support)

    def state(self) -> dict[str, Any]:
        """The map, and what the optimiser remembers, for `restore`."""
        return {"map": self.parameter.detach(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where another one of the same method and band limit was; `state` may have been through JSON."""
        self.parameter.data = state["map"]
        optimiser = state["optimiser"]
        of_parameters = {int(number): of_one for number, of_one in optimiser["state"].items()}
        self.optimiser.load_state_dict({**optimiser, "state": of_parameters})

    @property
    def volumes(self) -> Tensor:
        """The current map of each class, (C, box, box, box), detached."""
        return self.parameter.detach().view(-1, *self.support.shape)

    def shown(self) -> Tensor:
        """`volumes`, for this process of the team alone."""
        return self.volumes

    @property
    def volume(self) -> Tensor:
        """The current map, or that of the first class, detached."""
        return self.volumes[0]

    @property
    def log_shares(self) -> Tensor:
        """Log of the share of the images that show each class, (C,) float64."""
        return torch.full((len(self.volumes),), -math.log(len(self.volumes)), dtype=torch.float64)

    @abstractmethod
    def step(self, images: WhitenedImages, batch: int = 0, n_images: int | None = None) -> StepReport:
        """Move the map by one minibatch, `batch` being its number where minibatches stay the same.

        `images` are the team's share of it that is this process's, and `n_images` the number of all of them.
        """

    @property
    def is_warm(self) -> bool:
        """Whether noise is taken for stronger than it is, so that a coarser sum over poses will do."""
        return False

    def judged(self, gain: float) -> bool:
        """Take note of how much better than an empty map the present one explains a held-out particle, in nats.

        Returns whether it has become so much worse that the stage should end.
        """
        return False

    def go_back(self) -> float | None:
        """Go back to the best map that was judged, if the method keeps it; its gain, or None."""
        return None

    @abstractmethod
    def set_step(self, size: float) -> None:
        """Use the step size that the stage asks for, a share of a full step; a method with its own schedule may not."""

    @property
    @abstractmethod
    def step_size(self) -> float:
        """The step size of the next step, in the method's own units."""


@final
class GradientStage(StageMethod):
    """Any torch optimiser, on the mean NLL plus the prior's share of one image, −log p(V) / n_images."""

    def __init__(
        self,
        band: BandModel,
        support: Tensor,
        volume: Tensor,
        *,
        spec: MethodSpec,
        rate: float,
        facts: Facts,
        objective: Objective,
        team: Team | None = None,
    ) -> None:
        super().__init__(band, support, volume, team)
        self._objective = objective
        self.optimiser = spec.build([self.parameter], rate, facts)

    def step(self, images: WhitenedImages, batch: int = 0, n_images: int | None = None) -> StepReport:
        """One step; the map stays inside its support."""
        n = len(images) if n_images is None else n_images
        share = len(images) / n
        found: list[float] = []

        def closure() -> Tensor:
            self.optimiser.zero_grad()
            means = torch.stack(self._objective(self.band, self.parameter * self.support, images)) * share
            torch.autograd.backward(means[1])
            assert self.parameter.grad is not None
            sums = means.detach()
            self.team.sum_(self.parameter.grad, sums)
            found.append(float(sums[0]))
            return sums[1]

        if isinstance(self.optimiser, SAG):
            self.optimiser.batch = batch
        self.optimiser.step(closure)  # type: ignore[arg-type]  # torch wants a float, and takes a tensor
        # Gradients are symmetric, but steps scaled voxel by voxel are so only as far as the grid is.
        self.parameter.data = self.team.from_first(lambda: self.band.group(self.parameter.data), self.parameter.data)
        return StepReport(found[0], None, len(found) * n)

    def set_step(self, size: float) -> None:
        """The methods have schedules of their own."""

    @property
    def step_size(self) -> float:
        """η of the next step, in the method's units."""
        size = getattr(self.optimiser, "step_size", None)
        return float(self.optimiser.param_groups[0].get("lr", float("nan")) if size is None else size)
