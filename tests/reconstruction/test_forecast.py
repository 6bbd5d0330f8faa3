"""The forecast counts what a run does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from hoarfrost.durations import between
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import PosePrior, make_orientation_quadrature, sampled_r_max
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.forecast import (
    MANY_FINAL_PASSES,
    PRODUCTS_OF_LIKELIHOOD,
    Forecast,
    Rates,
    exact_products,
    expected_seconds,
    measure,
    total_seconds,
)
from hoarfrost.reconstruction.run import forecast_line
from hoarfrost.reconstruction.schedule import WARM_SHARE
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.settings.plan import resolve
from hoarfrost.reconstruction.settings.settings import Settings


@pytest.fixture(scope="module")
def settings(example_particles: Path) -> Settings:
    stack = ParticleStack.open(example_particles)
    return resolve(stack, Options(), output=Path("run"))


def test_there_is_a_time_for_each_stage_and_the_final_pass(settings: Settings) -> None:
    seconds = expected_seconds(settings, Rates())
    assert len(seconds) == len(settings.stages_r_max) + len(settings.refined_r_max) + 1
    n_exact = len(settings.stages_r_max)
    assert min(seconds[:n_exact]) > 0
    # The first band limit of refinement is below that of the starts, the last is left to the final passes.
    refined = seconds[n_exact:-1]
    assert refined[0] == refined[-1] == 0
    assert min(refined[1:-1] + seconds[-1:]) > 0


def test_each_rate_counts_for_its_own_stages(settings: Settings) -> None:
    usual = expected_seconds(settings, Rates(1e-9, 1e-6))
    exact = len(settings.stages_r_max)
    slow = expected_seconds(settings, Rates(2e-9, 1e-6))
    climbing = expected_seconds(settings, Rates(1e-9, 2e-6))
    assert slow[:exact] == pytest.approx([2 * s for s in usual[:exact]])
    assert climbing[:exact] == usual[:exact]
    # Refinement searches by sums and climbs by evaluations.
    both = expected_seconds(settings, Rates(2e-9, 2e-6))
    assert both == pytest.approx([2 * s for s in usual])
    for once, sums, climbs in zip(usual[exact + 1 :], slow[exact + 1 :], climbing[exact + 1 :], strict=True):
        assert min(sums, climbs) > once or once == sums == climbs == 0


def test_the_final_pass_grows_with_the_particles_and_the_stages_do_not(settings: Settings) -> None:
    many = settings.model_copy(update={"n_particles": 200_000})
    more, most = (settings.model_copy(update={"n_particles": n}) for n in (400_000, 600_000))
    few_s, more_s, most_s = (expected_seconds(s, Rates()) for s in (many, more, most))
    assert few_s[:-1] == more_s[:-1] == most_s[:-1]
    # In proportion but for maps, and but for those that refinement has seen, which need no search in the final passes.
    assert most_s[-1] - more_s[-1] == pytest.approx(more_s[-1] - few_s[-1], rel=1e-9)
    assert more_s[-1] == pytest.approx(2 * few_s[-1], rel=0.05)


def test_particles_that_refinement_has_not_seen_are_searched_for(settings: Settings) -> None:
    few = settings.model_copy(update={"n_particles": 4000 + settings.held_out})
    many = settings.model_copy(update={"n_particles": 40_000 + settings.held_out})
    few_s, many_s = (expected_seconds(s, Rates()) for s in (few, many))
    n_exact = len(settings.stages_r_max)
    # All are new in every sweep of many; of few most are known from the second sweep on.
    assert few_s[:n_exact] == many_s[:n_exact]
    assert many_s[n_exact + 2] > 2 * few_s[n_exact + 2]


def test_epochs_shorten_it(settings: Settings) -> None:
    full = expected_seconds(settings, Rates())
    short = expected_seconds(settings.model_copy(update={"epochs": 1.0}), Rates())
    # The first minibatches are the warm ones, which take less.
    share = (settings.n_particles - settings.held_out) / (180 * settings.batch_size)
    assert 0.2 * share * full[0] < short[0] < 0.6 * share * full[0]
    assert sum(short[1:-1]) == 0


def test_products_are_so_many_a_score(settings: Settings) -> None:
    still = settings.model_copy(update={"shift_sigma_A": 0.0})
    diameter = settings.diameter_A / (settings.box * settings.pixel_size_A)
    turn = random_rotations(1, torch.Generator())[0]
    band = BandModel(settings.box, 6.0, PosePrior(0.0, 0.0), turn, diameter=diameter)
    each = band.disc.size + PRODUCTS_OF_LIKELIHOOD
    assert exact_products(6.0, still) == band.poses.orientations.n_nodes * each
    warm = make_orientation_quadrature(sampled_r_max(WARM_SHARE * 6.0, diameter)).n_nodes
    assert exact_products(6.0, still, is_warm=True) == warm * each
    # Searches are as fine as the box asks for, whatever the diameter.
    assert exact_products(6.0, still, is_search=True) == make_orientation_quadrature(6.0).n_nodes * each


def test_rates_are_measured(settings: Settings) -> None:
    generator = torch.Generator().manual_seed(0)
    band = BandModel(settings.box, 4.0, PosePrior(1.0, 2.0), random_rotations(1, generator)[0])
    k = band.disc.size
    data = torch.randn(5, k, dtype=torch.complex64, generator=generator)
    images = WhitenedImages(data, torch.ones(5, k), torch.zeros(5, dtype=torch.float64))
    usual, fastest = measure(settings, band, images, generator)
    assert 0 < fastest.product_s <= usual.product_s < 1e-4
    assert 0 < fastest.evaluation_s <= usual.evaluation_s < 1e-2


def test_a_range_is_told_that_work_of_others_widens(settings: Settings) -> None:
    rates = Rates(1e-9, 1e-6)
    quiet = Forecast.of(settings, rates, rates)
    total = total_seconds(settings, expected_seconds(settings, rates))
    assert (quiet.least_s, quiet.total_s, quiet.most_s) == pytest.approx((0.5 * total, total, 1.6 * total))
    assert quiet.stages_s == tuple(expected_seconds(settings, rates))
    # At times the machine is three times as fast as in the median.
    busy = Forecast.of(settings, Rates(3e-9, 3e-6), rates)
    assert (busy.least_s, busy.most_s) == pytest.approx((quiet.least_s, 3 * quiet.most_s))
    told = dataclasses.replace(quiet, least_s=120.0, most_s=290.0)
    assert forecast_line(told, settings).startswith("Expected: 2 to 5 min, and up to ")


def test_the_longest_time_counts_the_passes_that_fine_detail_takes(settings: Settings) -> None:
    rates = Rates(1e-9, 1e-6)
    fine = settings.model_copy(update={"box": 128, "refined_r_max": (9.0, 20.0, 36.0, 60.0)})
    few, many = (expected_seconds(fine, rates, share_of_fine=1.0, final_passes=n) for n in (3, MANY_FINAL_PASSES))
    assert few[:-1] == many[:-1]
    assert many[-1] == pytest.approx(MANY_FINAL_PASSES / 3 * few[-1], rel=0.1)
    assert Forecast.of(fine, rates, rates).most_s == pytest.approx(1.6 * total_seconds(fine, many))


@pytest.mark.parametrize(
    ("least_s", "most_s", "words"),
    [
        (3, 9, "up to 10 s"),
        (12, 33, "10 to 40 s"),
        (31, 90, "30 to 90 s"),
        (25, 91, "20 s to 2 min"),
        (125, 241, "2 to 5 min"),
        (91, 119, "1 to 2 min"),
        (1500, 5400, "25 to 90 min"),
        (1800, 5401, "30 min to 1.6 h"),
        (7000, 22_000, "1.9 to 6.2 h"),
    ],
)
def test_a_range_has_round_numbers_that_hold_it(least_s: float, most_s: float, words: str) -> None:
    assert between(least_s, most_s) == words
