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
    def step(self, images: WhitenedImages, batch: int = 0) -> StepReport:
        """Move the map by one minibatch, `batch` being its number where minibatches stay the same."""

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

    def step(self, images: WhitenedImages, batch: int = 0) -> StepReport:
        """E-step on the minibatch, then the M-step on the running averages."""
        posterior = self.band.posterior(self.volume, images, statistics=True)
        nll = -posterior.log_evidence.mean()
        self.optimiser.step(lambda: (nll, self.band.quadratic(posterior, len(images))))
        return StepReport(float(nll), float(posterior.ess.median()), len(images))

    def allow_negative(self) -> None:
        """Let the map turn negative from now on: it is right by now, and its band limit makes negative lobes."""
        self.optimiser.solve = MStep(self.support, positive=False)

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
    ) -> None:
        super().__init__(band, support, volume)
        self._objective = objective
        self.optimiser = spec.build([self.parameter], rate, facts)

    def step(self, images: WhitenedImages, batch: int = 0) -> StepReport:
        """One step; the map stays inside its support."""
        found: list[float] = []

        def closure() -> Tensor:
            self.optimiser.zero_grad()
            nll, loss = self._objective(self.band, self.parameter * self.support, images)
            torch.autograd.backward(loss)
            found.append(float(nll.detach()))
            return loss.detach()

        if isinstance(self.optimiser, SAG):
            self.optimiser.batch = batch
        self.optimiser.step(closure)  # type: ignore[arg-type]  # torch wants a float, and takes a tensor
        return StepReport(found[0], None, len(found) * len(images))

    def set_step(self, size: float) -> None:
        """The methods have schedules of their own."""

    @property
    def step_size(self) -> float:
        """η of the next step, in the method's units."""
        size = getattr(self.optimiser, "step_size", None)
        return float(self.optimiser.param_groups[0].get("lr", float("nan")) if size is None else size)
