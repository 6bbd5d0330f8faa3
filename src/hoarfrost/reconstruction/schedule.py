"""When to take smaller steps, when to march on to the next band limit, when to stop: decided by held-out particles.

Large steps forget a bad start quickly, small ones average the noise away. In each stage the step starts large and is
halved when the held-out gain stalls; when the smallest stalls too, the stage is over. The gain of a map is how much
better it explains an image than an empty map does, in nats; it grows with the band limit as long as the data hold
more detail, so it is comparable between stages.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

# A rise in the gain counts if it exceeds this part of it.
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


# The first stage finds the shape of the molecule from nothing. Some starts wander for a hundred iterations first.
FIRST_STAGE = StagePlan(
    steps=(0.3, 0.15), least_iterations=120, most_iterations=500, patience=20, check_every=10, expected_iterations=180
)
# Later stages add detail to a map that is right already. Clear images need ten iterations, others twenty.
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


# While a start is warm posteriors are wide: a quadrature for this share of the band limit will do, of a fifth as many
# poses.
WARM_SHARE = 2 / 3

# Sweeps per band limit: 2 to 8. They stop when what the map explains of an image beyond its spherical average, where
# orientations tell, rises by less than 5 %, or by what noise would do.
LEAST_SWEEPS, EXPECTED_SWEEPS, MOST_SWEEPS = 2, 3, 8
# One will do where half maps agree that well to the band limit, so that there is more to gain beyond it; but from this
# band limit on, as coarse detail has to be right first.
CLEAR_FSC, CLEAR_FROM_R_MAX = 0.5, 19.0
LEAST_RISE_OF_SWEEP, LEAST_NATS_OF_SWEEP = 0.05, 0.05
MOST_IMAGES_OF_SWEEP = 4000
# Part of the images of a sweep or a final pass that is searched everywhere though their poses are known: so many times
# the part of those searched in the pass before that were found elsewhere, if these were enough to tell.
LEAST_SEARCHED, MOST_SEARCHED, SEARCHES_FOR_EACH = 0.03, 0.15, 2.0
LEAST_SEARCHES, EXPECTED_SEARCHED = 50, 0.06
# Particles whose draws a checkpoint holds at most, at 2 kB each.
LARGEST_PORTION = 10_000

# Final passes go on until the mean FSC of a map with the one before exceeds the first number, or particles are not
# explained better by so many nats and standard errors, or so often. Those of each half end sooner: maps of all
# particles get better when those of halves do not any more.
STANDS_STILL = 0.98
LEAST_RISE_OF_HALF_PASS, LEAST_RISE_OF_PASS, LEAST_STANDARD_ERRORS = 0.1, 0.02, 2.0
MOST_HALF_PASSES, MOST_COMMON_PASSES = 12, 16


def is_last_sweep(gains: Sequence[float], r_max: float, fsc_at_edge: float) -> bool:
    """Whether a stage is over after sweeps that explained an image so many nats better than their spherical average.

    `fsc_at_edge` is that of the half maps at its band limit r_max, after the last sweep.
    """
    if gains and r_max >= CLEAR_FROM_R_MAX and fsc_at_edge >= CLEAR_FSC:
        return True
    if len(gains) < LEAST_SWEEPS:
        return False
    least = max(LEAST_NATS_OF_SWEEP, LEAST_RISE_OF_SWEEP * abs(gains[-1]))
    return len(gains) >= MOST_SWEEPS or gains[-1] - gains[-2] < least


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


# The finest quadrature that poses are searched on. Up to here the sums take no more time than the climbs that follow; a
# coarser one often misses the right pose.
SEARCH_R_MAX = 9.5


# Of sums that a symmetry makes so many times shorter, finer ones take no longer: their cost goes as this power.
COST_POWER = 6.0


def search_stage(stages_r_max: Sequence[float], r_max: float) -> int:
    """The stage on whose quadrature refinement at a band limit searches all poses, without a symmetry."""
    limit = min(r_max, SEARCH_R_MAX)
    return max((stage for stage, r in enumerate(stages_r_max) if r <= limit), default=0)


def search_r_max(stages_r_max: Sequence[float], r_max: float, n_alike: int, diameter: float) -> float:
    """The band limit that refinement at another searches all poses at, where sums leave out all but one of `n_alike`.

    A band limit of its own, below that of the refinement, or that of a stage. A particle's `diameter` as a share of the
    box makes sums shorter too, as its cube.
    """
    of_stage = stages_r_max[search_stage(stages_r_max, r_max)]
    if n_alike == 1:
        return of_stage
    shorter = n_alike / min(1.0, diameter) ** 3
    return max(of_stage, min(SEARCH_R_MAX * math.pow(shorter, 1 / COST_POWER), r_max / LEAST_GROWTH))


# Band limits of refinement nearer to that of the sums over all poses are left out.
LEAST_GROWTH = 1.1


def last_stage_of_starts(stages_r_max: Sequence[float], refined_r_max: Sequence[float]) -> int:
    """The stage of sums over all poses that refinement begins after: the finest that it searches with and goes beyond.

    The last where there is no refinement.
    """
    if not refined_r_max:
        return len(stages_r_max) - 1
    return search_stage(stages_r_max, refined_r_max[-1] / LEAST_GROWTH)


# An image's pose is one of about exp(12) at the first band limit. Images that the map explains much less well do not
# know theirs yet, and refinement does not mend the mistakes of a map that began from them.
LEAST_GAIN_TO_REFINE = 8.0
# Part of the sums over all poses beyond those that refinement searches with, which only some data need.
EXPECTED_SHARE_OF_EXACT = 0.3

# Part of refinement beyond this band limit, in Fourier pixels, which only some data come to.
USUAL_LAST_R_MAX, EXPECTED_SHARE_OF_FINE = 36.0, 0.5


# The final map reaches so many times as far as the half maps of refinement agree. They agree further once the final
# passes have found better poses, and the map of all particles holds more than its halves.
REACH_OF_FINAL = 1.5


def r_max_of_final(r_max: float, refined_r_max: Sequence[float], agree_to: float) -> float:
    """The band limit of the final passes after a refinement that ended at r_max.

    Half maps cease to agree where refinement ends, but the map of all particles holds more. For that reason refinement
    leaves out the last of its band limits. Where half maps `agree_to` less than r_max, what is added is counted from
    there, or from the band limit before, where they agreed.
    """
    last = max(refined_r_max, default=r_max)
    before = max((coarser for coarser in refined_r_max if coarser < r_max), default=r_max)
    return min(max(last, r_max), REACH_OF_FINAL * max(before, min(agree_to, r_max)))


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


@dataclass(frozen=True)
class StageControl:
    """Where a stage is in its plan: which step size it uses since when, and the best held-out gain and when it was."""

    plan: StagePlan
    step_index: int = 0
    best_gain: float = -math.inf
    best_at: int = 0
    step_began: int = 0

    @property
    def step_size(self) -> float:
        """The step size to use now."""
        return self.plan.steps[self.step_index]

    def is_check(self, iteration: int) -> bool:
        """Whether the held-out particles are to be looked at after this iteration of the stage, counted from 1."""
        return iteration % self.plan.check_every == 0

    def decide(self, iteration: int, gain: float) -> tuple[Decision, "StageControl"]:
        """What to do, given the held-out gain in nats an image after `iteration` of the stage, and the control then."""
        control = self
        if gain > self.best_gain + LEAST_RISE * abs(gain):
            control = dataclasses.replace(self, best_gain=gain, best_at=iteration)
        enough = self.plan.clear_iterations
        is_clear = enough is not None and iteration >= enough and gain >= CLEAR_GAIN
        if is_clear or iteration >= self.plan.most_iterations:
            return Decision.STAGE_DONE, control
        if self.step_index == 0 and iteration < self.plan.least_iterations:
            return Decision.GO_ON, control
        if iteration - max(control.best_at, self.step_began) < self.plan.patience:
            return Decision.GO_ON, control
        if self.step_index + 1 == len(self.plan.steps):
            return Decision.STAGE_DONE, control
        smaller = dataclasses.replace(control, step_index=self.step_index + 1, step_began=iteration)
        return Decision.SMALLER_STEP, smaller
