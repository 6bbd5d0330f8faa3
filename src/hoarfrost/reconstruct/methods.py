"""The optimisation methods by name, each as a thing that takes a minibatch and moves the map of one stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hoarfrost.fourier import fourier_resize
from hoarfrost.model.band import BandModel
from hoarfrost.model.likelihood import WhitenedImages
from hoarfrost.model.prior import ExponentialCubicPrior
from hoarfrost.optim.online_em import OnlineEM
from hoarfrost.optim.registry import Facts, MethodSpec
from hoarfrost.optim.sag import SAG
from hoarfrost.reconstruct.distribution import Team
from hoarfrost.reconstruct.m_step import MStep


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

    Every process of `team` has the same map and steps with its share of each minibatch.
    """

    def __init__(self, band: BandModel, support: Tensor, volume: Tensor, team: Team | None = None) -> None:
        self.band = band
        self.support = support
        self.team = team or Team()
        self.parameter = torch.nn.Parameter(volume * support)

    @property
    def volume(self) -> Tensor:
        """The current map, detached."""
        return self.parameter.detach()

    @abstractmethod
    def step(self, images: WhitenedImages, batch: int = 0, n_images: int | None = None) -> StepReport:
        """Move the map by one minibatch, `batch` being its number where minibatches stay the same.

        `images` are the team's share of it that is this process's, and `n_images` the number of all of them.
        """

    @abstractmethod
    def set_step(self, size: float) -> None:
        """Use the step size that the stage asks for, a share of a full step; a method with its own schedule may not."""

    @property
    @abstractmethod
    def step_size(self) -> float:
        """The step size of the next step, in the method's own units."""


@final
class AutoStage(StageMethod):
    """`auto`: online expectation–maximisation, without a learning rate."""

    def __init__(
        self,
        band: BandModel,
        support: Tensor,
        volume: Tensor,
        previous: AutoStage | None = None,
        team: Team | None = None,
    ) -> None:
        super().__init__(band, support, volume, team)
        self._m_step = MStep(support)
        self.optimiser = OnlineEM([self.parameter], self._solve)
        statistics = None if previous is None else previous.optimiser.statistics
        if statistics is not None:
            linear, kernel = statistics
            resized = (fourier_resize(linear, band.box), fourier_resize(kernel, 2 * band.box))
            # Statistics of a narrower band say nothing of the new shells, so they count as old.
            self.optimiser.start_from(resized, step=self.optimiser.defaults["warm_up"])

    def step(self, images: WhitenedImages, batch: int = 0, n_images: int | None = None) -> StepReport:
        """E-step on the minibatch, then the M-step on the running averages."""
        n = len(images) if n_images is None else n_images
        posterior = self.band.posterior(self.volume, images, statistics=True)
        statistics = self.band.quadratic(posterior, n)
        self.team.sum_(*statistics)
        each = torch.stack([posterior.log_evidence, posterior.ess.to(torch.float64)], dim=1)
        log_evidence, ess = self.team.gather(each, n).unbind(1)
        nll = -log_evidence.mean()
        self.optimiser.step(lambda: (nll, statistics))
        return StepReport(float(nll), float(ess.median()), n)

    def allow_negative(self) -> None:
        """Let the map turn negative from now on: it is right by now, and its band limit makes negative lobes."""
        self._m_step = MStep(self.support, positive=False)

    def _solve(self, statistics: tuple[Tensor, ...], current: Tensor) -> Tensor:
        solution: Tensor = self.team.from_first(lambda: self._m_step(statistics, current), current)
        return solution

    def set_step(self, size: float) -> None:
        """ρ, the weight of the newest minibatch."""
        self.optimiser.param_groups[0]["lr"] = size

    @property
    def step_size(self) -> float:
        """ρ of the next step."""
        return self.optimiser.step_size


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
