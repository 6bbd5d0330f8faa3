"""How long a run will take, from what it will do and how fast this machine does it; the progress bar goes by it too.

Work is counted per image: a sum over all poses takes so many products for each score, and a visit in refinement as long
as so many evaluations of one pose (`few_poses`). Both rates are measured in a moment on images of the run. The number
of iterations is the expected one: stages end when the data say so. What the user is told is therefore a range.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from hoarfrost.durations import between
from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.model.all_poses.band import BandModel, box_of
from hoarfrost.model.all_poses.marginal import marginalise_with_statistics
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import PosePrior, make_orientation_quadrature, make_shift_quadrature, sampled_r_max
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.folds import FOLDS
from hoarfrost.reconstruction.schedule import (
    EXPECTED_SEARCHED,
    EXPECTED_SHARE_OF_EXACT,
    EXPECTED_SHARE_OF_FINE,
    EXPECTED_SWEEPS,
    LEAST_GROWTH,
    USUAL_LAST_R_MAX,
    WARM_SHARE,
    last_stage_of_starts,
    plan_stage,
    search_stage,
    sweep_size,
)
from hoarfrost.reconstruction.settings.settings import Settings
from hoarfrost.reconstruction.starts.annealing import MINIBATCHES
from hoarfrost.reconstruction.watch.progress import FractionDone

# Before a machine is measured: that of two cores.
USUAL_PRODUCT_S, USUAL_EVALUATION_S = 1e-11, 5e-8
# A score takes a product for each coefficient, and its way to a likelihood as long as so many.
PRODUCTS_OF_LIKELIHOOD = 200
# To find the likely poses of an image takes such a share of a sum with statistics.
SEARCHED_SUM = 0.6
# Evaluations of one coefficient at one pose that an image takes in refinement: so many, and so many more for each of
# its coefficients. A search takes these besides its sum.
VISIT = 2900, 11.0
VISIT_OF_FINAL = 2900, 25.0
SEARCH = 10_000, 5.0
# Building and solving for a map of one half, in evaluations for each voxel.
EVALUATIONS_PER_VOXEL = 25
IMAGES_TO_TIME, CLIMBS_TO_TIME, R_MAX_TO_TIME = 100, 4, 15.0
SECONDS_TO_TIME, MOST_REPEATS = 0.5, 15
# Final passes of a run that comes to fine detail; the fewest are those of `expected_seconds`.
MANY_FINAL_PASSES = 8
# Of the time that this machine takes at its fastest, and of that which it takes now, in the median of a second.
LEAST_OF_FASTEST, MOST_OF_USUAL = 0.5, 1.6


@dataclass(frozen=True)
class Rates:
    """Seconds for one product of a sum over all poses and for one coefficient at one pose in refinement."""

    product_s: float = USUAL_PRODUCT_S
    evaluation_s: float = USUAL_EVALUATION_S


@dataclass(frozen=True)
class Forecast:
    """What the stages of a run are expected to take, and between which times the whole run is expected to end.

    `stages_s` are as of `expected_seconds`, and `total_s` counts them for every start.
    """

    stages_s: tuple[float, ...]
    total_s: float
    least_s: float
    most_s: float

    @classmethod
    def of(cls, settings: Settings, usual: Rates, fastest: Rates) -> "Forecast":
        """From the rates of a machine as it usually is, and at its fastest."""
        stages_s = expected_seconds(settings, usual)
        at_fastest_s = total_seconds(settings, expected_seconds(settings, fastest, share_of_fine=0.0))
        to_the_end = expected_seconds(settings, usual, share_of_fine=1.0, final_passes=MANY_FINAL_PASSES)
        to_the_end_s = total_seconds(settings, to_the_end)
        total_s = total_seconds(settings, stages_s)
        return cls(tuple(stages_s), total_s, LEAST_OF_FASTEST * at_fastest_s, MOST_OF_USUAL * to_the_end_s)

    def __str__(self) -> str:
        return between(self.least_s, self.most_s)


def exact_products(r_max: float, settings: Settings, *, is_warm: bool = False, is_search: bool = False) -> int:
    """Products of one image's sum over all poses, of those of `annealing` while noise `is_warm`, or of a search."""
    s = settings
    fine_to = WARM_SHARE * r_max if is_warm else r_max
    shifts = make_shift_quadrature(fine_to, s.box, s.shift_sigma_A / s.pixel_size_A, s.shift_extent_A / s.pixel_size_A)
    diameter = 1.0 if is_search else s.diameter_A / (s.box * s.pixel_size_A)
    scores = make_orientation_quadrature(sampled_r_max(fine_to, diameter)).n_nodes * len(shifts.shifts_px)
    return scores * (FourierDisc(s.box, r_max).size + PRODUCTS_OF_LIKELIHOOD)


@dataclass
class _Visits:
    """Counts the particles that refinement has seen; those that it sees first are searched for everywhere."""

    n: int
    settings: Settings
    rates: Rates
    seen: int = 0

    def seconds(self, images: int, r_max: float, visit: tuple[int, float]) -> float:
        """What visits of so many images take."""
        s = self.settings
        new = min(images, self.n - self.seen)
        self.seen += new
        searched = new + EXPECTED_SEARCHED * (images - new)
        coefficients = math.pi * r_max**2 / 2
        evaluations = images * (visit[0] + visit[1] * coefficients) + searched * (SEARCH[0] + SEARCH[1] * coefficients)
        of_search = exact_products(s.stages_r_max[search_stage(s.stages_r_max, r_max)], s, is_search=True)
        products = searched * SEARCHED_SUM * of_search
        return evaluations * self.rates.evaluation_s + products * self.rates.product_s


def expected_seconds(
    settings: Settings,
    rates: Rates,
    *,
    share_of_fine: float = EXPECTED_SHARE_OF_FINE,
    final_passes: int = EXPECTED_SWEEPS,
) -> list[float]:
    """Of each stage of sums over all poses, of each of refinement, and last of the final passes.

    Of refinement beyond `USUAL_LAST_R_MAX` such a share counts, and of passes there so many.
    """
    s = settings
    n_training = s.n_particles - s.held_out
    allowed = math.inf if s.epochs is None else s.epochs * n_training
    seconds = []
    for number, r_max in enumerate(s.stages_r_max):
        if s.initial != "random":
            # Particles are added up at their poses, or a map is read, in the place of the last stage.
            added = n_training if s.initial == "poses" and number == len(s.stages_r_max) - 1 else 0
            seconds.append(added * FourierDisc(s.box, s.initial_r_max or r_max).size * rates.evaluation_s)
            continue
        plan = plan_stage(number, s.stages_r_max, s.refined_r_max, s.method)
        is_sure = number <= last_stage_of_starts(s.stages_r_max, s.refined_r_max)
        expected = 1.0 if is_sure else EXPECTED_SHARE_OF_EXACT
        images = min(expected * plan.expected_iterations * s.batch_size, allowed)
        allowed -= images
        checked = images / s.batch_size / plan.check_every * s.held_out / 2  # without statistics
        products = (images + checked) * exact_products(r_max, s)
        if number == 0 and s.method == "auto":
            warm = min(images, MINIBATCHES * s.batch_size)
            products -= warm * (exact_products(r_max, s) - exact_products(r_max, s, is_warm=True))
        seconds.append(s.classes * products * rates.product_s)
    last, known = s.stages_r_max[0], _Visits(n_training, s, rates, n_training if s.search == "near" else 0)
    begun = s.initial_r_max or s.stages_r_max[last_stage_of_starts(s.stages_r_max, s.refined_r_max)]
    first = LEAST_GROWTH * begun
    swept = [r_max for r_max in s.refined_r_max if r_max >= first]
    # The last is left to the final passes.
    swept = swept[:-1] or swept
    usual = last
    for r_max in s.refined_r_max:
        is_swept, is_usual = allowed > 0 and r_max in swept, r_max <= USUAL_LAST_R_MAX
        images = EXPECTED_SWEEPS * sweep_size(n_training) if is_swept else 0
        allowed -= images
        last = r_max if allowed > 0 or images else last
        usual = last if is_usual else usual
        maps = 2 * (1 + FOLDS) * s.classes * EXPECTED_SWEEPS * _map_evaluations(r_max) if images else 0
        visits = known.seconds(images, r_max, VISIT)
        judged = _Visits(s.held_out, s, rates).seconds(s.held_out if images else 0, r_max, VISIT)
        seconds.append((1 if is_usual else share_of_fine) * (visits + judged + maps * rates.evaluation_s))

    def final_seconds(r_max: float) -> float:
        passes = (final_passes if r_max > USUAL_LAST_R_MAX else EXPECTED_SWEEPS) if s.refined_r_max else 1
        everyone = dataclasses.replace(known, n=s.n_particles)
        visits = everyone.seconds(passes * s.n_particles, r_max, VISIT_OF_FINAL)
        maps = passes * (3 + 2 * FOLDS) * s.classes * _map_evaluations(r_max)
        return visits + maps * rates.evaluation_s

    if not s.refined_r_max:
        return [*seconds, final_seconds(s.stages_r_max[-1])]
    return [*seconds, share_of_fine * final_seconds(last) + (1 - share_of_fine) * final_seconds(usual)]


def expected_starts(settings: Settings) -> int:
    """Random starts that a run will need: two that agree, or as many as were asked for."""
    return min(2, settings.starts) if settings.until_two_agree else settings.starts


def total_seconds(settings: Settings, seconds: Sequence[float]) -> float:
    """What a run takes whose stages take those `seconds`, with all its starts."""
    n_exact = len(settings.stages_r_max)
    return expected_starts(settings) * sum(seconds[:n_exact]) + sum(seconds[n_exact:])


def fraction_done_of(settings: Settings, seconds: Sequence[float]) -> FractionDone:
    """The estimate of how much is done, by the `seconds` that stages are expected to take."""
    return FractionDone.of(seconds, len(settings.stages_r_max), expected_starts(settings))


def measured_forecast(env: Env) -> Forecast:
    """By the rates of this machine, which are measured in about two seconds."""
    band = env.band(0, env.first_symmetry)
    images = env.sample(band.disc, IMAGES_TO_TIME)
    usual, fastest = measure(env.settings, band, images, env.generator("forecast"))
    return Forecast.of(env.settings, usual, fastest)


def measure(
    settings: Settings, band: BandModel, images: WhitenedImages, generator: torch.Generator
) -> tuple[Rates, Rates]:
    """The rates of this machine, now and at its fastest.

    Measured on a few images against an empty map at the first band limit, in about a second.

    Evaluations are timed on noise, at a band limit where the arithmetic counts for more than the calls.
    """
    images = images[: min(len(images), IMAGES_TO_TIME)]
    n = len(images)
    empty = torch.zeros(band.box, band.box, band.box, device=band.device)

    def add_up() -> None:
        marginalise_with_statistics(images, band.operator.slices(empty), band.poses)[0].ess.sum().item()

    disc = FourierDisc(settings.box, min(R_MAX_TO_TIME, settings.box / 2 - 1))
    side = box_of(disc.r_max)
    model = LocalModel(torch.zeros(side, side, side, device=band.device), disc, PosePrior(1.0, 3.0))
    noise = WhitenedImages(
        torch.randn(n, disc.size, dtype=torch.complex64, generator=generator).to(band.device),
        torch.ones(n, disc.size, device=band.device),
        images.log_constant,
    )
    rotations = random_rotations(n, generator).to(band.device)
    shifts_px = torch.zeros(n, 2, dtype=torch.float64, device=band.device)

    def climb() -> None:
        # Of an empty map every step is a small one, so that the first look is the last.
        for _ in range(CLIMBS_TO_TIME):
            model.climb(noise, rotations, shifts_px, 1).log_density.sum().item()

    products, evaluations = n * exact_products(band.r_max, settings), CLIMBS_TO_TIME * n * disc.size
    sums_s, climbs_s = _seconds(add_up), _seconds(climb)
    usual, fastest = (Rates(pick(sums_s) / products, pick(climbs_s) / evaluations) for pick in (statistics.median, min))
    return usual, fastest


def _map_evaluations(r_max: float) -> float:
    return float(EVALUATIONS_PER_VOXEL * box_of(r_max) ** 3)


def _seconds(work: Callable[[], None]) -> list[float]:
    """As many as half a second allows, after one that warms up: a busy machine stalls now and then."""
    work()
    times: list[float] = []
    while sum(times) < SECONDS_TO_TIME and len(times) < MOST_REPEATS:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return times
