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
from hoarfrost.optim.sgd import ScheduledSGD
from hoarfrost.reconstruct.curvature import largest_curvature
from hoarfrost.reconstruct.m_step import MStep


@dataclass(frozen=True)
class StepReport:
    """Mean NLL of the minibatch before the step, and the median effective number of poses (None if not known)."""

    nll: float
    ess: float | None


class StageMethod(ABC):
    """One method at one band limit. `volume` is the map (box, box, box), already inside `support`."""

    def __init__(self, band: BandModel, support: Tensor, volume: Tensor) -> None:
        self.band = band
        self.support = support
        self.parameter = torch.nn.Parameter(volume * support)

    @property
    def volume(self) -> Tensor:
        """The current map, detached."""
        return self.parameter.detach()

    @abstractmethod
    def step(self, images: WhitenedImages) -> StepReport:
        """Move the map by one minibatch."""

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

    def __init__(self, band: BandModel, support: Tensor, volume: Tensor, previous: AutoStage | None = None) -> None:
        super().__init__(band, support, volume)
        self.optimiser = OnlineEM([self.parameter], MStep(support))
        statistics = None if previous is None else previous.optimiser.statistics
        if statistics is not None:
            linear, kernel = statistics
            resized = (fourier_resize(linear, band.box), fourier_resize(kernel, 2 * band.box))
            # Statistics of a narrower band say nothing of the new shells, so they count as old.
            self.optimiser.start_from(resized, step=self.optimiser.defaults["warm_up"])

    def step(self, images: WhitenedImages) -> StepReport:
        """E-step on the minibatch, then the M-step on the running averages."""
        posterior = self.band.posterior(self.volume, images, statistics=True)
        nll = -posterior.log_evidence.mean()
        self.optimiser.step(lambda: (nll, self.band.quadratic(posterior, len(images))))
        return StepReport(float(nll), float(posterior.ess.median()))

    def set_step(self, size: float) -> None:
        """ρ, the weight of the newest minibatch."""
        self.optimiser.param_groups[0]["lr"] = size

    @property
    def step_size(self) -> float:
        """ρ of the next step."""
        return self.optimiser.step_size


@final
class SGDStage(StageMethod):
    """`sgd`: stochastic gradient descent on NLL plus prior, its base step from the expected curvature."""

    def __init__(
        self,
        band: BandModel,
        support: Tensor,
        volume: Tensor,
        *,
        sample: WhitenedImages,
        n_images: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(band, support, volume)
        self._prior = ExponentialCubicPrior()
        self._n_images = n_images
        self.optimiser = ScheduledSGD([self.parameter], lr=1 / largest_curvature(band, sample, generator))

    def step(self, images: WhitenedImages) -> StepReport:
        """One gradient step; the map stays inside its support."""
        nll = torch.zeros(())

        def closure() -> Tensor:
            nonlocal nll
            self.optimiser.zero_grad()
            volume = self.parameter * self.support
            nll = self.band.nll(volume, images)
            loss: Tensor = nll + self._prior.negative_log(volume) / self._n_images
            torch.autograd.backward(loss)
            return loss

        self.optimiser.step(closure)
        return StepReport(float(nll.detach()), None)

    def set_step(self, size: float) -> None:
        """The published schedule shrinks the step by itself."""

    @property
    def step_size(self) -> float:
        """η of the next step, in map units squared per nat."""
        return self.optimiser.step_size
