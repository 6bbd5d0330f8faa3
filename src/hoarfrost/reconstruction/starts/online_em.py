"""`auto`: online expectation–maximisation, without a learning rate, for one map or for several classes."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.mixture import log_shares_of
from hoarfrost.model.images import WhitenedImages
from hoarfrost.optim.online_em import OnlineEM, Statistics
from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.estimate.junk import Junk
from hoarfrost.reconstruction.estimate.m_step import MStep
from hoarfrost.reconstruction.starts.annealing import Annealing
from hoarfrost.reconstruction.starts.fold_prior import ridges_of_folds
from hoarfrost.reconstruction.starts.gradient import StageMethod, StepReport

# A stage is over where the held-out gain has fallen by this share.
LEAST_FALL = 0.1
# What is learnt of junk comes from the latest 20 minibatches or so, as some hundreds of images have to tell it.
KEPT_STEP = 0.05


@final
class AutoStage(StageMethod):
    """Online EM of `volumes` (C, box, box, box), or of one (box, box, box), with the shares of the classes.

    Goes on from the running averages of `previous`, of a narrower band. Minibatches come from `folds` in turn, and each
    is seen under the map of the other folds: see `folds`. That map is the parameter, and what the next solutions start
    from; `volumes`, those of all folds, are solved for where they are asked for. After each turn of all folds the prior
    of the maps is learnt anew (`fold_prior`). Noise is as strong as `annealing` takes it for, and the NLL of a step is
    that of images with so much noise. Once noise is taken for what it is, images that `junk` explains better than the
    maps count for less.
    """

    def __init__(
        self,
        band: BandModel,
        support: Tensor,
        volumes: Tensor,
        previous: AutoStage | None = None,
        team: Team | None = None,
        annealing: Annealing | None = None,
        junk: Junk | None = None,
        folds: int = 1,
    ) -> None:
        super().__init__(band, support, volumes.view(-1, *support.shape), team)
        self._m_step = MStep(support)
        self._annealing: Annealing = (annealing or Annealing()) if previous is None else previous._annealing
        self.junk: Junk | None = junk if previous is None else previous.junk
        self._turns = 0
        self._ridges: Tensor | None = None
        self._common: Tensor | None = super().volumes
        self._best: tuple[float, Tensor, list[Statistics | None]] | None = None
        self.optimiser: OnlineEM = OnlineEM([self.parameter], None, folds=folds)
        if previous is not None and previous.optimiser.statistics is not None:
            resized = [None if s is None else _resized(s, band.box) for s in previous.optimiser.averages]
            # Statistics of a narrower band say nothing of the new shells, so they count as old.
            self.optimiser.start_from(resized, step=self.optimiser.defaults["warm_up"])

    def step(self, images: WhitenedImages, batch: int = 0, n_images: int | None = None) -> StepReport:
        """E-step on the minibatch, under a map that its fold, `batch`, has no part in; then the M-step on all."""
        self.optimiser.fold = batch % self.optimiser.folds
        # Statistics of a narrower band alone solve for no map: the kernel, cut off there, rings in the new shells. On
        # 70S poses found with one such took what the map explains from 34 to −586 nats in five minibatches.
        is_first_turn = self._turns < self.optimiser.folds
        self._turns += 1
        others = None if is_first_turn else self.optimiser.without(self.optimiser.fold)
        seen = self.volumes if others is None else self._solve(others)
        self.parameter.data = seen.view_as(self.parameter)
        n = len(images) if n_images is None else n_images
        is_cold = self._annealing.temperature == 1
        images = images.tempered(self._annealing.temperature)
        self._annealing.next_minibatch()
        junk = self.junk if is_cold else None
        log_none = None
        if junk is not None:
            junk.begin()
            evidence = junk.evidence(images, self.band.disc)
            if junk.is_told_by_kind:
                log_none = images.log_constant + evidence.log_ratio + junk.log_odds
        posterior = self.band.mixture(seen, images, self.log_shares, statistics=True, log_none=log_none)
        parts = [self.band.quadratic_of(numerator, weight, n) for numerator, weight in posterior.statistics]
        statistics = (
            *(torch.stack(part) for part in zip(*parts, strict=True)),
            posterior.probability.sum(dim=0).to(parts[0][0]) / n,
        )
        self.team.sum_(*statistics)
        each = torch.stack([posterior.log_evidence, posterior.ess.to(torch.float64)], dim=1)
        log_evidence, ess = self.team.gather(each, n).unbind(1)
        if junk is not None:
            lead = posterior.log_evidence - images.log_constant - evidence.log_ratio
            sums = junk.sums_over(images, self.band.disc, 1 - posterior.probability.sum(dim=1), evidence)
            self.team.sum_(sums)
            junk.count(sums, self.team.gather(lead, n))
            if log_none is not None:
                junk.learn(keep=1 - KEPT_STEP)
        nll = -log_evidence.mean()
        self.optimiser.step(lambda: (nll, statistics))
        if self._turns % self.optimiser.folds == 0:
            self._learn_prior()
        self._common = None
        return StepReport(float(nll), float(ess.median()), n)

    @property
    def volumes(self) -> Tensor:
        """The maps of all folds, (C, box, box, box). All processes of the team have to ask for them together."""
        if self._common is None:
            assert self.optimiser.statistics is not None
            self._common = self._solve(self.optimiser.statistics)
        return self._common

    def shown(self) -> Tensor:
        """The same, for this process alone."""
        if self._common is not None:
            return self._common
        assert self.optimiser.statistics is not None
        return self._solved(self.optimiser.statistics)

    @property
    def log_shares(self) -> Tensor:
        """Log of the share of the images that show each class, (C,) float64."""
        statistics = self.optimiser.statistics
        return super().log_shares if statistics is None else log_shares_of(statistics[2])

    @property
    def is_warm(self) -> bool:
        """Whether noise is taken for stronger than it is."""
        return self._annealing.is_warm

    def judged(self, gain: float) -> bool:
        """Keep the maps if they are the best so far; whether they have become so much worse that it is time to end.

        Where images are poor a map soon fits the noise of the particles that it is made from: on 808 of
        beta-galactosidase what it explained of others rose to 5.7 nats in 80 minibatches and fell to 2.5 in 80 more.
        """
        if self.is_warm:
            return False
        if self._best is None or gain > self._best[0]:
            self._best = (gain, self.volumes, self.optimiser.averages)
        return gain < (1 - LEAST_FALL) * self._best[0]

    def go_back(self) -> float | None:
        """To the best maps that there were; returns their gain, None if there was no judgement."""
        if self._best is None:
            return None
        gain, volumes, averages = self._best
        self._common = volumes
        self.optimiser.start_from(averages, self.optimiser.defaults["warm_up"])
        return gain

    def state(self) -> dict[str, Any]:
        """The maps, the running averages, the temperature and the best maps so far, for `restore`."""
        best = None
        if self._best is not None:
            gain, volumes, averages = self._best
            best = {"gain": gain, "volumes": volumes, "averages": averages}
        junk = None if self.junk is None else self.junk.state()
        return {
            **super().state(),
            "annealing": self._annealing.state(),
            "junk": junk,
            "best": best,
            "turns": self._turns,
            "ridges": self._ridges,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where another one at the same band limit was."""
        super().restore(state)
        self._annealing.restore(state["annealing"])
        self._turns, self._ridges = state["turns"], state["ridges"]
        self._common = None if self._turns else super().volumes
        if self.junk is not None:
            self.junk.restore(state["junk"])
        if (best := state["best"]) is not None:
            averages = [None if of_fold is None else tuple(of_fold) for of_fold in best["averages"]]
            self._best = (best["gain"], best["volumes"], averages)

    def allow_negative(self) -> None:
        """Let the map turn negative from now on: it is right by now, and its band limit makes negative lobes."""
        self._m_step = MStep(self.support, positive=False)

    def _learn_prior(self) -> None:
        known = [of_fold for of_fold in self.optimiser.averages if of_fold is not None]
        if len(known) > 1:
            like = self.support.new_zeros(len(known[0][0]), self.band.box // 2 + 1)
            self._ridges = self.team.from_first(partial(ridges_of_folds, known, self.support), like)

    def _solve(self, statistics: Statistics) -> Tensor:
        return self.team.from_first(partial(self._solved, statistics), self._seen)

    def _solved(self, statistics: Statistics) -> Tensor:
        linear, kernel, _ = statistics
        ridges = [None] * len(linear) if self._ridges is None else self._ridges
        m_steps = [dataclasses.replace(self._m_step, shell_ridge=ridge) for ridge in ridges]
        each = zip(m_steps, linear, kernel, self._seen, strict=True)
        maps = torch.stack([m_step((b, t), now) for m_step, b, t, now in each])
        return maps if bool(maps.isfinite().all()) else self._seen

    @property
    def _seen(self) -> Tensor:
        """The maps (C, box, box, box) that the latest minibatch was seen under."""
        return super().volumes

    def set_step(self, size: float) -> None:
        """ρ, the weight of the newest minibatch."""
        self.optimiser.param_groups[0]["lr"] = size

    @property
    def step_size(self) -> float:
        """ρ of the next step."""
        return self.optimiser.step_size


def _resized(statistics: Statistics, box: int) -> Statistics:
    """Statistics, of each class, for maps of `box` voxels."""
    linear, kernel, shares = statistics
    return (
        torch.stack([fourier_resize(of_class, box) for of_class in linear]),
        torch.stack([fourier_resize(of_class, 2 * box) for of_class in kernel]),
        shares,
    )
