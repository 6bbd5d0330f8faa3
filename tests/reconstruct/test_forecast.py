"""The forecast counts what a run does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hoarfrost.geometry import random_rotations
from hoarfrost.model.band import BandModel
from hoarfrost.model.likelihood import WhitenedImages
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruct.forecast import Rates, exact_products, expected_seconds, measure
from hoarfrost.reconstruct.settings import Options, Settings, resolve


@pytest.fixture(scope="module")
def settings(example_particles: Path) -> Settings:
    stack = ParticleStack.open(example_particles)
    return resolve(stack, Options(), output=Path("run"), datadir=None, version="test")


def test_there_is_a_time_for_each_stage_and_the_final_pass(settings: Settings) -> None:
    seconds = expected_seconds(settings, Rates())
    assert len(seconds) == len(settings.stages_r_max) + len(settings.refined_r_max) + 1
    # The last band limit of refinement is left to the final passes.
    assert seconds[-2] == 0
    assert min(seconds[:-2] + seconds[-1:]) > 0


def test_each_rate_counts_for_its_own_stages(settings: Settings) -> None:
    usual = expected_seconds(settings, Rates(1e-9, 1e-6))
    exact = len(settings.stages_r_max)
    slow = expected_seconds(settings, Rates(2e-9, 1e-6))
    assert slow == pytest.approx([2 * s for s in usual[:exact]] + usual[exact:])


def test_the_final_pass_grows_with_the_particles_and_the_stages_do_not(settings: Settings) -> None:
    many = settings.model_copy(update={"n_particles": 200_000})
    more = settings.model_copy(update={"n_particles": 400_000})
    few_s, more_s = expected_seconds(many, Rates()), expected_seconds(more, Rates())
    assert few_s[:-1] == more_s[:-1]
    assert more_s[-1] == pytest.approx(2 * few_s[-1], rel=0.01)


def test_epochs_shorten_it(settings: Settings) -> None:
    full = expected_seconds(settings, Rates())
    short = expected_seconds(settings.model_copy(update={"epochs": 1.0}), Rates())
    n = settings.n_particles - settings.held_out
    assert short[0] == pytest.approx(full[0] * n / (180 * settings.batch_size))
    assert sum(short[1:-1]) == 0


def test_a_product_is_a_score_or_a_share_of_one(settings: Settings) -> None:
    still = settings.model_copy(update={"shift_sigma_A": 0.0})
    band = BandModel(settings.box, 6.0, PosePrior(0.0, 0.0), random_rotations(1, torch.Generator())[0])
    assert exact_products(6.0, still) == 3 * band.poses.orientations.n_base * band.disc.size


def test_rates_are_measured(settings: Settings) -> None:
    generator = torch.Generator().manual_seed(0)
    band = BandModel(settings.box, 4.0, PosePrior(1.0, 2.0), random_rotations(1, generator)[0])
    k = band.disc.size
    data = torch.randn(5, k, dtype=torch.complex64, generator=generator)
    images = WhitenedImages(data, torch.ones(5, k), torch.zeros(5, dtype=torch.float64))
    rates = measure(settings, band, images, generator)
    assert 0 < rates.product_s < 1e-4
    assert 0 < rates.evaluation_s < 1e-2
