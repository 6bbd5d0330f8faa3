"""When to prune the sum over poses, at which band limits and how far: chosen by images, and checked by images.

One image in a hundred, drawn at random, is summed exactly too. What the pruned sum lost on them, log p − log p_pruned
in nats, is averaged over the last checks; where it exceeds the budget that batch is summed again exactly, the margin is
widened, and the band limits are chosen anew. Where no pruning would be faster than the exact sum, all is summed exactly
until the next choice.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hoarfrost.fourier import FourierDisc
from hoarfrost.model.likelihood import PoseModel, Posterior, WhitenedImages, marginalise
from hoarfrost.model.pruned import Pruning, adaptive_marginalise

BUDGET = 0.01  # nats per image, mean
# Of 600 clear images one lost more than half its posterior at 10 to 12 nats and none at 13 (docs/speed.md).
FIRST_MARGIN = 13.0
WIDENING = 1.25
WIDEST_MARGIN = 60.0
# Images summed exactly too: one in so many, some as soon as so many have passed, since a sum over a few costs nearly as
# much as one over ten in preparing the slices; and the number of them whose errors are averaged.
IMAGES_PER_CHECKED = 100
IMAGES_PER_CHECK = 1000
CHECKS_AVERAGED = 200
# A new choice is made this often in any case, because maps and with them posteriors change.
BATCHES_PER_CHOICE = 50
IMAGES_FOR_CHOICE = 16
# Band limits to choose from, as shares of the full one.
SHARES = ((0.4,), (0.5,), (0.625,), (0.4, 0.625), (0.625, 0.8))
LEAST_BAND = 2.0
# The choice goes by counts, not by the clock, so that the same seed gives the same bits. Nanoseconds a node on one
# core, a constant and a share of each coefficient, measured at 11 to 167 coefficients: of the exact sum with
# statistics, of the first sum, and of a node that is scored again, which no matrix product does.
EXACT_NS, FIRST_NS, AGAIN_NS = (1.7, 0.015), (0.9, 0.009), (25.0, 0.75)
# A further sum is worth its own loss of poses if it saves so much.
LEVEL_PENALTY = 1.15
# Pruning pays if its expected time is below this share of the exact sum's.
WORTHWHILE = 0.7


@dataclass
class Account:
    """What an `AdaptiveSum` did: batches summed, those summed exactly, images checked and their total error in nats."""

    batches: int = 0
    exact_batches: int = 0
    checked: int = 0
    error: float = 0.0
    messages: list[str] = field(default_factory=list)

    @property
    def mean_error(self) -> float:
        """Nats per checked image."""
        return self.error / self.checked if self.checked else 0.0


class AdaptiveSum:
    """The sum over poses of batch after batch, pruned as far as a budget of error in nats per image lets it.

    `margin` is where it begins, in nats. Random images to check come from `generator`. The `pruning` in use is None
    while all is summed exactly; `account` tells what was done.
    """

    def __init__(self, generator: torch.Generator, *, budget: float = BUDGET, margin: float = FIRST_MARGIN) -> None:
        self.budget, self.margin = budget, margin
        self.pruning: Pruning | None = None
        self.account = Account()
        self._generator = generator
        self._errors: deque[float] = deque(maxlen=CHECKS_AVERAGED)
        self._until_choice = 0
        self._unchecked = 0

    def __call__(
        self, images: WhitenedImages, slices: Tensor, poses: PoseModel, *, statistics: bool = True
    ) -> Posterior:
        """As `marginalise`, to within the budget on the average image."""
        self.account.batches += 1
        if not math.isfinite(float(torch.view_as_real(slices).sum())):
            # There is no best node to prune by.
            self.account.exact_batches += 1
            return marginalise(images, slices, poses, statistics=statistics)
        if self._until_choice == 0:
            self._choose(images, slices, poses)
        self._until_choice -= 1
        if self.pruning is not None:
            posterior = adaptive_marginalise(images, slices, poses, self.pruning, statistics=statistics).posterior
            if self._passes(posterior, images, slices, poses):
                return posterior
        self.account.exact_batches += 1
        return marginalise(images, slices, poses, statistics=statistics)

    def _passes(self, posterior: Posterior, images: WhitenedImages, slices: Tensor, poses: PoseModel) -> bool:
        """Whether the last images checked lost no more than the budget; if it is time, some of this batch are."""
        self._unchecked += len(images)
        if self._errors and self._unchecked < IMAGES_PER_CHECK:
            return True
        chosen = self._some(images, -(-self._unchecked // IMAGES_PER_CHECKED))
        self._unchecked = 0
        exact = marginalise(images[chosen], slices, poses, statistics=False)
        found = (exact.log_evidence - posterior.log_evidence[chosen]).tolist()
        self._errors.extend(found)
        self.account.checked += len(found)
        self.account.error += sum(found)
        # Not <=, so that what is not a number fails.
        mean = sum(self._errors) / len(self._errors)
        if mean <= self.budget:
            return True
        self._say(f"pruned sums lost {mean:.3f} nats an image at a margin of {self.margin:.1f} nats")
        self._widen()
        return False

    def _widen(self) -> None:
        self.margin *= WIDENING
        self._errors.clear()
        self._until_choice = 0

    def _choose(self, images: WhitenedImages, slices: Tensor, poses: PoseModel) -> None:
        """The band limits of least expected time that keep to the budget on a few images, or None."""
        self._until_choice = BATCHES_PER_CHOICE
        self.pruning = None
        sample = images[self._some(images, IMAGES_FOR_CHOICE)]
        exact = marginalise(sample, slices, poses, statistics=False).log_evidence
        least = WORTHWHILE * _exact_time(poses)
        plans = [bands for bands in (band_limits(share, poses.disc.r_max) for share in SHARES) if bands]
        while self.margin <= WIDEST_MARGIN:
            lost = False
            for bands in plans:
                pruning = Pruning(bands, self.margin)
                if _first_time(poses, pruning) >= least:
                    continue
                pruned = adaptive_marginalise(sample, slices, poses, pruning, statistics=False)
                if not float((exact - pruned.posterior.log_evidence).mean()) <= self.budget:
                    lost = True
                    continue
                expected = _first_time(poses, pruning) + _later_time(poses, pruning, pruned.kept)
                expected *= LEVEL_PENALTY ** (len(bands) - 1)
                if expected < least:
                    least, self.pruning = expected, pruning
            if self.pruning is not None or not lost:
                break
            self.margin *= WIDENING
        if self.pruning is None:
            self._say("pruning would save nothing, so poses are summed exactly")
        else:
            limits = ", ".join(f"{r:.1f}" for r in self.pruning.bands)
            self._say(f"pruned at r_max {limits} with a margin of {self.margin:.1f} nats")

    def _some(self, images: WhitenedImages, n: int) -> Tensor:
        return torch.randperm(len(images), generator=self._generator)[:n].to(images.data.device)

    def _say(self, message: str) -> None:
        if not self.account.messages or self.account.messages[-1] != message:
            self.account.messages.append(message)


def band_limits(shares: tuple[float, ...], r_max: float) -> tuple[float, ...]:
    """Shares of a band limit in Fourier pixels, without those that are too low to tell poses apart."""
    return tuple(share * r_max for share in shares if share * r_max >= LEAST_BAND)


def _exact_time(poses: PoseModel) -> float:
    return _nodes(poses) * (EXACT_NS[0] + EXACT_NS[1] * poses.disc.size)


def _first_time(poses: PoseModel, pruning: Pruning) -> float:
    size = FourierDisc(poses.disc.box, pruning.bands[0]).size
    return _nodes(poses) * (FIRST_NS[0] + FIRST_NS[1] * size)


def _later_time(poses: PoseModel, pruning: Pruning, kept: Tensor) -> float:
    sizes = [FourierDisc(poses.disc.box, r).size for r in pruning.bands[1:]] + [poses.disc.size]
    each = torch.tensor(sizes, dtype=torch.float64) * AGAIN_NS[1] + AGAIN_NS[0]
    return float((kept * each).sum())


def _nodes(poses: PoseModel) -> int:
    return poses.orientations.n_nodes * len(poses.shift_log_weights)
