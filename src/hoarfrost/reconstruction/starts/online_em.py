"""`auto`: online expectation–maximisation, without a learning rate, for one map or for several classes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from hoarfrost.model.all_poses.mixture import log_shares_of
from hoarfrost.model.quadratic import Quadratic
from hoarfrost.optim.online_em import OnlineEM, Statistics
from hoarfrost.reconstruction.estimate.junk import Junk
from hoarfrost.reconstruction.estimate.m_step import MStep, solve_each
from hoarfrost.reconstruction.starts.annealing import Annealing
from hoarfrost.reconstruction.starts.fold_prior import ridges_of_folds
from hoarfrost.reconstruction.starts.method import Ground, Minibatch, StepReport

# A stage is over where the held-out gain has fallen by this part of it.
LEAST_FALL = 0.1
# What is learnt of junk comes from the latest 20 minibatches or so, as some hundreds of images have to tell it.
KEPT_STEP = 0.05
# Running averages that are so many minibatches old count as no longer young: see `OnlineEM`.
OLD = 100


@dataclass(frozen=True)
class Averages:
    """Running averages of b, T and the shares of the classes, of each fold; None before the first step of one."""

    folds: tuple[tuple[Tensor, ...] | None, ...]
    n_steps: int = 0

    @property
    def known(self) -> list[tuple[Tensor, ...]]:
        """Those of the folds that there are any of."""
        return [of_fold for of_fold in self.folds if of_fold is not None]


@dataclass(frozen=True)
class BestMaps:
    """The maps that explained held-out particles best, by `gain` nats, and the averages that they came from."""

    gain: float
    volumes: Tensor
    averages: Averages


@final
@dataclass(frozen=True)
class OnlineMethod:
    """Online EM of maps (C, box, box, box), with the shares of the classes.

    Minibatches come from folds in turn, and each is seen under the map of the other folds (`estimate.folds`): `seen`,
    from which the next solutions start. The maps of all folds are solved for where they are asked for. After each turn
    of all folds the prior of the maps is learnt anew (`fold_prior`): `ridges` (C, shells). Noise is as strong as
    `annealing` takes it for, and the NLL of a step is that of images with so much noise. Once noise is taken for what
    it is, images that `junk` explains better than the maps count for less. `turns` counts the minibatches at this band
    limit. `warm_up` and `size` are those of `OnlineEM`: minibatches that count as young, and ρ after them. Maps that
    are not `positive` may turn negative. `common` are the maps of all folds, None where they are not solved for.
    """

    seen: Tensor
    common: Tensor | None
    averages: Averages
    annealing: Annealing = dataclasses.field(default_factory=Annealing)
    junk: Junk | None = None
    turns: int = 0
    ridges: Tensor | None = None
    best: BestMaps | None = None
    size: float = 0.3
    warm_up: int = OLD
    positive: bool = True

    @classmethod
    def begin(
        cls,
        ground: Ground,
        volumes: Tensor,
        folds: int = 1,
        annealing: Annealing | None = None,
        junk: Junk | None = None,
    ) -> OnlineMethod:
        """From maps (C, box, box, box), or one (box, box, box), cut off by their support."""
        start = volumes.view(-1, *ground.support.shape) * ground.support
        return cls(start, start, Averages((None,) * folds), annealing or Annealing(), junk)

    def widened(self, ground: Ground, volumes: Tensor) -> OnlineMethod:
        """The method at a wider band limit, from its maps on the new grid (C, box, box, box)."""
        box = ground.band.box
        # Statistics of a narrower band say nothing of the new shells, so they count as old.
        folds = tuple(None if of_fold is None else _resized(of_fold, box) for of_fold in self.averages.folds)
        is_begun = bool(self.averages.known)
        start = volumes * ground.support
        return OnlineMethod(
            start,
            start,
            Averages(folds, OLD if is_begun else 0),
            self.annealing,
            self.junk,
            size=self.size,
            positive=self.positive,
        )

    def step(self, ground: Ground, minibatch: Minibatch) -> tuple[OnlineMethod, StepReport]:
        """E-step on the minibatch, under a map that its fold has no part in; then the averages, and what follows."""
        fold = minibatch.number % len(self.averages.folds)
        optimiser = self._optimiser(fold)
        # Statistics of a narrower band alone solve for no map: the kernel, cut off there, rings in the new shells.
        is_first_turn = self.turns < len(self.averages.folds)
        others = None if is_first_turn else optimiser.without(fold)
        seen = self.solved(ground).volumes if others is None else self._solve(ground, others)
        images, n = minibatch.images.tempered(self.annealing.temperature), minibatch.n_images
        junk = None if self.junk is None or self.annealing.temperature != 1 else self.junk.begun()
        log_none = None
        if junk is not None:
            evidence = junk.evidence(images, ground.band.disc)
            if junk.is_told_by_kind:
                log_none = images.log_constant + evidence.log_ratio + junk.log_odds
        posterior, of_slices = ground.band.mixture_with_statistics(seen, images, self.log_shares, log_none)
        parts = [ground.band.quadratic(of_class, n) for of_class in of_slices]
        statistics = (
            torch.stack([part.linear for part in parts]),
            torch.stack([part.kernel for part in parts]),
            posterior.probability.sum(dim=0).to(parts[0].linear) / n,
        )
        ground.team.sum_(*statistics)
        each = torch.stack([posterior.log_evidence, posterior.ess.to(torch.float64)], dim=1)
        log_evidence, ess = ground.team.gather(each, n).unbind(1)
        if junk is not None:
            lead = posterior.log_evidence - images.log_constant - evidence.log_ratio
            sums = junk.sums_over(images, ground.band.disc, 1 - posterior.probability.sum(dim=1), evidence)
            ground.team.sum_(sums)
            junk = junk.counting(sums, ground.team.gather(lead, n))
            if log_none is not None:
                junk = junk.learnt(keep=1 - KEPT_STEP)
        nll = -log_evidence.mean()
        optimiser.step(lambda: (nll, statistics))
        after = dataclasses.replace(
            self,
            seen=seen,
            common=None,
            averages=Averages(tuple(optimiser.averages), optimiser.n_steps),
            annealing=self.annealing.cooled(),
            junk=self.junk if junk is None else junk,
            turns=self.turns + 1,
        )
        return after._with_prior(ground), StepReport(float(nll), float(ess.median()), n)

    def solved(self, ground: Ground) -> OnlineMethod:
        """With the maps of all folds. All processes have to ask for them together."""
        if self.common is not None:
            return self
        return dataclasses.replace(self, common=self._solve(ground, self._statistics))

    @property
    def volumes(self) -> Tensor:
        """The maps of all folds (C, box, box, box), which have to be solved for."""
        assert self.common is not None
        return self.common

    def shown(self, ground: Ground) -> Tensor:
        """The same, found by this process alone where they are not solved for."""
        return self._solved(ground, self._statistics) if self.common is None else self.common

    @property
    def log_shares(self) -> Tensor:
        """Log of the share of the images that show each class, (C,) float64."""
        statistics = self._optimiser().statistics
        if statistics is not None:
            return log_shares_of(statistics[2])
        return torch.full((len(self.seen),), -math.log(len(self.seen)), dtype=torch.float64)

    @property
    def is_warm(self) -> bool:
        """Whether noise is taken for stronger than it is."""
        return self.annealing.is_warm

    @property
    def step_size(self) -> float:
        """ρ of the next step."""
        return self._optimiser().step_size

    def sized(self, size: float) -> OnlineMethod:
        """With ρ, the weight of the newest minibatch."""
        return dataclasses.replace(self, size=size)

    def judged(self, gain: float) -> tuple[OnlineMethod, bool]:
        """Keeps the maps if they are the best so far; whether they have become so much worse that it is time to end.

        Where images are poor a map soon fits the noise of the particles that it is made from.
        """
        if self.is_warm:
            return self, False
        method = self
        if self.best is None or gain > self.best.gain:
            method = dataclasses.replace(self, best=BestMaps(gain, self.volumes, self.averages))
        assert method.best is not None
        return method, gain < (1 - LEAST_FALL) * method.best.gain

    def at_best(self) -> tuple[OnlineMethod, float | None]:
        """Gone back to the best maps that there were; their gain, None if there was no judgement."""
        if self.best is None:
            return self, None
        averages = dataclasses.replace(self.best.averages, n_steps=self.warm_up)
        return dataclasses.replace(self, common=self.best.volumes, averages=averages), self.best.gain

    def allowing_negative(self) -> OnlineMethod:
        """With maps that may turn negative: they are right by now, and the band limit makes negative lobes."""
        return dataclasses.replace(self, positive=False)

    def _optimiser(self, fold: int = 0) -> OnlineEM:
        folds = len(self.averages.folds)
        optimiser = OnlineEM([self.seen], None, lr=self.size, warm_up=self.warm_up, folds=folds, fold=fold)
        optimiser.start_from(self.averages.folds, self.averages.n_steps)
        return optimiser

    @property
    def _statistics(self) -> Statistics:
        statistics = self._optimiser().statistics
        assert statistics is not None
        return statistics

    def _with_prior(self, ground: Ground) -> OnlineMethod:
        """After a turn of all folds the ridges are learnt anew."""
        known = [Quadratic(linear, kernel) for linear, kernel, _ in self.averages.known]
        if self.turns % len(self.averages.folds) or len(known) < 2:
            return self
        like = ground.support.new_zeros(len(self.seen), ground.band.box // 2 + 1)
        return dataclasses.replace(self, ridges=ground.team.once(partial(ridges_of_folds, known, ground.support), like))

    def _solve(self, ground: Ground, statistics: Statistics) -> Tensor:
        return ground.team.once(partial(self._solved, ground, statistics), self.seen)

    def _solved(self, ground: Ground, statistics: Statistics) -> Tensor:
        quadratic = Quadratic(*statistics[:2])

        def solved(c: int) -> Tensor:
            ridge = None if self.ridges is None else self.ridges[c]
            return MStep(ground.support, self.positive, ridge)(quadratic[c], self.seen[c])

        found = solve_each(solved, range(len(self.seen)), self.seen.shape[-1], self.seen.device)
        return found if bool(found.isfinite().all()) else self.seen


def _resized(statistics: tuple[Tensor, ...], box: int) -> tuple[Tensor, ...]:
    """Statistics, of each class, for maps of `box` voxels."""
    quadratic = Quadratic(*statistics[:2]).resized(box)
    return quadratic.linear, quadratic.kernel, statistics[2]
