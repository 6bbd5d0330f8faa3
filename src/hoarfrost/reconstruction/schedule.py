"""When to take smaller steps, when to march on to the next band limit, when to stop: decided by held-out particles.

Large steps forget a bad start quickly, small ones average the noise away. In each stage the step starts large and is
halved when the held-out gain stalls; when the smallest stalls too, the stage is over. The gain of a map is how much
better it explains an image than an empty map does, in nats; it grows with the band limit as long as the data hold
more detail, so it is comparable between stages.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

# A rise in the gain counts if it exceeds this share of it. With half of it, and twice the patience in the first stage,
# all of eleven starts went on for 20 to 80 iterations, at the median for 70 of 240, for a gain of 0.1 nats at most.
LEAST_RISE = 2e-3


class Decision(Enum):
    """What to do after an iteration."""

    GO_ON = "go on"
    SMALLER_STEP = "smaller step"
    STAGE_DONE = "stage done"


@dataclass(frozen=True)
class StagePlan:
    """Step sizes of a stage in the order used, and its iterations.

    A step size is used until the gain has not risen for `patience` iterations, the first one for at least
    `least_iterations`; the stage ends after `most_iterations` in any case, and after `clear_iterations`, if given,
    where images are clear (`CLEAR_GAIN`).
    """

    steps: tuple[float, ...]
    least_iterations: int
    most_iterations: int
    patience: int
    check_every: int
    expected_iterations: int
    clear_iterations: int | None = None


# The first stage finds the shape of the molecule from nothing; some starts wander for a hundred iterations first.
FIRST_STAGE = StagePlan(
    steps=(0.3, 0.15), least_iterations=120, most_iterations=500, patience=20, check_every=10, expected_iterations=180
)
# Later stages add detail to a map that is right already. Ten iterations of each led to the same maps of 70S (34 nats at
# r_max 7.4) and of the hard sets (12 to 17 there, 16 to 22 at 9.2), a sixth sooner; but 808 real particles of
# beta-galactosidase (9 and 13) came to 33.7 Å in place of 22.7. So the other ten are for images that are not clear.
CLEAR_GAIN = 15.0
LATER_STAGE = StagePlan(
    steps=(0.15, 0.08), least_iterations=10, most_iterations=20, patience=5, check_every=5, expected_iterations=20
)
REFINED_LATER_STAGE = dataclasses.replace(LATER_STAGE, clear_iterations=10, expected_iterations=15)
# The last one needs no averaging, because a pass over all particles follows.
LAST_STAGE = StagePlan(
    steps=(0.15,), least_iterations=5, most_iterations=5, patience=5, check_every=5, expected_iterations=5
)

# Methods that follow gradients have schedules of their own, and need more minibatches than one that solves for the map.
GRADIENT_STAGE = StagePlan(
    steps=(1.0,), least_iterations=100, most_iterations=600, patience=60, check_every=20, expected_iterations=300
)


# A refinement stage goes so many times over the particles, or over as many of them as a sweep takes: as long as a sweep
# raises what the map explains of an image by more than this share. Where images know their poses well two sweeps are
# enough (70S); on beta-galactosidase a start that two sweeps took to 42 Å came to 28 Å with six.
LEAST_SWEEPS, EXPECTED_SWEEPS, MOST_SWEEPS = 2, 3, 8
LEAST_RISE_OF_SWEEP = 0.02
MOST_IMAGES_OF_SWEEP = 4000
# Of the images that a sweep or a final pass visits, those looked for everywhere though their poses are known.
SEARCHED_SHARE = 0.15
# Of the last pass: a checkpoint holds the poses drawn for what is not summed yet, 2 kB for each particle.
LARGEST_PORTION = 10_000

# All particles are seen against their common map until it stands still: its mean FSC with the one before exceeds this,
# or so often. Of 70S it is 0.993 at once, and the map as good; of the hard sets it comes to 0.92 to 0.97, and each of
# the first three passes makes a better map.
STANDS_STILL = 0.98
MOST_COMMON_PASSES = 3


def is_last_sweep(gains: Sequence[float]) -> bool:
    """Whether a stage is over after sweeps in which an image was explained so many nats better than by an empty map."""
    if len(gains) < LEAST_SWEEPS:
        return False
    return len(gains) >= MOST_SWEEPS or gains[-1] - gains[-2] < LEAST_RISE_OF_SWEEP * abs(gains[-1])


def share_of_sweeps(done: float) -> float:
    """How much of a stage's sweeps, or of the final passes, is done, when so many are.

    Nobody knows how many will follow the least number.
    """
    if done <= LEAST_SWEEPS:
        return done / EXPECTED_SWEEPS
    return 1 - (1 - LEAST_SWEEPS / EXPECTED_SWEEPS) * math.exp2(-(done - LEAST_SWEEPS) / 2)


def sweep_size(n_training: int) -> int:
    """Particles of one sweep of a refinement stage."""
    return min(n_training, MOST_IMAGES_OF_SWEEP)


# Of 60 ribosomes in wrong poses 7 % find the right one on a quadrature of r_max 6, 57 % on one of 7.4, and 73 % on one
# of 9.2: at 6 it is often not among the best. Up to here the sums take no longer than the climbs that follow.
SEARCH_R_MAX = 9.5


def search_stage(stages_r_max: Sequence[float], r_max: float) -> int:
    """The stage on whose quadrature refinement at a band limit searches all poses."""
    limit = min(r_max, SEARCH_R_MAX)
    return max((stage for stage, r in enumerate(stages_r_max) if r <= limit), default=0)


# Band limits of refinement nearer to that of the sums over all poses are left out.
LEAST_GROWTH = 1.1


def last_stage_of_starts(stages_r_max: Sequence[float], refined_r_max: Sequence[float]) -> int:
    """The stage of sums over all poses that refinement begins after: the finest that it searches with and goes beyond.

    The last where there is no refinement.
    """
    if not refined_r_max:
        return len(stages_r_max) - 1
    return search_stage(stages_r_max, refined_r_max[-1] / LEAST_GROWTH)


# An image's pose is one of about exp(12) at the first band limit. Images that a map explains much less well do not yet
# know theirs: on beta-galactosidase (1 nat at the first limit, 9 at the next but one) refinement that began at the
# first ended at 40 Å. Nor does refinement find its way back from the mistakes of a coarse map, also where images are
# clear: of GroEL-GroES with a tenth of the images showing something else (10 nats at r_max 6), begun at r_max 6 it
# stayed at a mean FSC of 0.84 with the truth up to r_max 10.9, begun at 9.2 it came to 0.95.
LEAST_GAIN_TO_REFINE = 8.0
# Sums over all poses beyond those that refinement searches with are needed for some data only; progress counts on so
# much of them.
EXPECTED_SHARE_OF_EXACT = 0.3


def r_max_of_final(r_max: float, refined_r_max: Sequence[float]) -> float:
    """The band limit of the final passes after a refinement that ended at r_max: a step of its march beyond.

    Half maps cease to agree where refinement ends, but the map of all particles holds more. Simulated GroEL-GroES
    refined to 10.8 Å comes to 9.9 Å with a final limit of 8 Å, and to 11.0 Å without; refined to 8 Å, in half as long
    again, to 9.7 Å with the same mean FSC. For that reason refinement leaves out the last of its band limits.
    """
    return next((finer for finer in refined_r_max if finer > r_max), r_max)


def plan_stage(
    stage: int, stages_r_max: Sequence[float], refined_r_max: Sequence[float] = (), method: str = "auto"
) -> StagePlan:
    """The plan of stage number `stage` of sums over all poses, of a run that may refine afterwards."""
    if method != "auto":
        return GRADIENT_STAGE
    if stage == 0:
        return FIRST_STAGE
    if stage == len(stages_r_max) - 1:
        return LAST_STAGE
    return REFINED_LATER_STAGE if refined_r_max else LATER_STAGE


class StageControl:
    """Follows one stage: feed it the held-out gain at each check."""

    def __init__(self, plan: StagePlan) -> None:
        self.plan = plan
        self._step_index = 0
        self._best_gain = float("-inf")
        self._best_at = 0
        self._step_began = 0

    def state(self) -> dict[str, Any]:
        """What decisions follow from, for `restore`."""
        return {
            "step_index": self._step_index,
            "best_gain": self._best_gain,
            "best_at": self._best_at,
            "step_began": self._step_began,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where another one with the same plan was."""
        self._step_index, self._best_gain = state["step_index"], state["best_gain"]
        self._best_at, self._step_began = state["best_at"], state["step_began"]

    @property
    def step_size(self) -> float:
        """The step size to use now."""
        return self.plan.steps[self._step_index]

    def is_check(self, iteration: int) -> bool:
        """Whether the held-out particles are to be looked at after this iteration of the stage, counted from 1."""
        return iteration % self.plan.check_every == 0

    def decide(self, iteration: int, gain: float) -> Decision:
        """What to do, given the held-out gain in nats per image after `iteration` of the stage."""
        if gain > self._best_gain + LEAST_RISE * abs(gain):
            self._best_gain, self._best_at = gain, iteration
        enough = self.plan.clear_iterations
        is_clear = enough is not None and iteration >= enough and gain >= CLEAR_GAIN
        if is_clear or iteration >= self.plan.most_iterations:
            return Decision.STAGE_DONE
        if self._step_index == 0 and iteration < self.plan.least_iterations:
            return Decision.GO_ON
        if iteration - max(self._best_at, self._step_began) < self.plan.patience:
            return Decision.GO_ON
        if self._step_index + 1 == len(self.plan.steps):
            return Decision.STAGE_DONE
        self._step_index += 1
        self._step_began = iteration
        return Decision.SMALLER_STEP
