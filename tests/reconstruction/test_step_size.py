"""Base steps from the curvature, whatever units a method has."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import whiten
from hoarfrost.model.map_prior import ExponentialCubicPrior
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.model.slices.operator import apply_normal, transform_normal_kernel
from hoarfrost.optim.registry import METHODS, Facts, MethodSpec
from hoarfrost.reconstruction.starts.curvature import expected_kernel, largest_curvature
from hoarfrost.reconstruction.starts.gradient import Descent, GradientMethod, Objective
from hoarfrost.reconstruction.starts.method import Ground, Minibatch
from hoarfrost.reconstruction.starts.step_size import LARGEST_FACTOR, Start, base_rate, choose_rate
from hoarfrost.simulation.packed import white_noise

IMAGE_BOX, R_MAX, N = 32, 3.2, 60


@pytest.fixture(scope="module")
def start() -> Start:
    rotation = random_rotations(1, named_generator(0, "step size"))[0]
    band = BandModel(IMAGE_BOX, R_MAX, PosePrior(0.0, 0.0), rotation)
    generator = named_generator(1, "step size")
    support = band.support(0.7)
    truth = torch.rand(support.shape, generator=generator) * support
    slices = band.operator.slices(truth)
    slices = slices[torch.randint(len(slices), (N,), generator=generator)]
    images = slices + white_noise(N, band.disc, generator)
    noise = torch.ones(band.disc.size, dtype=torch.float64)
    sample = whiten(images, torch.ones_like(images.real), noise, band.disc)
    volume = torch.rand(support.shape, generator=generator) * support * 0.5
    return Start(band, support, volume, sample, Objective(ExponentialCubicPrior(), N))


@pytest.fixture(scope="module")
def facts(start: Start) -> Facts:
    return Facts(largest_curvature(start.band, start.sample, named_generator(0, "c")), n_batches=1)


def gradient(start: Start) -> Tensor:
    volume = start.volume.clone().requires_grad_()
    _, loss = start.objective(start.band, volume * start.support, start.sample)
    torch.autograd.backward(loss)
    assert volume.grad is not None
    return volume.grad


def test_methods_in_units_of_a_gradient_step_take_the_inverse_of_the_curvature(start: Start, facts: Facts) -> None:
    assert base_rate(METHODS["sgd"], start, facts) == 1 / facts.largest_curvature
    assert base_rate(METHODS["hf"], start, facts) == 1


def test_a_probed_rate_is_the_minimum_of_the_quadratic_along_the_first_step(start: Start, facts: Facts) -> None:
    plain = MethodSpec("plain", "plain", lambda p, rate, _: torch.optim.SGD(p, lr=rate), "line")
    g = gradient(start)
    spectrum = transform_normal_kernel(expected_kernel(start.band, start.sample))
    expected = float((g * g).sum() / (g * 2 * apply_normal(spectrum, g)).sum())
    assert base_rate(plain, start, facts) == pytest.approx(expected, rel=1e-3)
    assert expected > 1 / facts.largest_curvature


def test_a_probed_rate_follows_the_methods_units(start: Start, facts: Facts) -> None:
    rates = [
        base_rate(
            MethodSpec("x", "x", lambda p, rate, _, unit=unit: torch.optim.Adam(p, lr=unit * rate), "line"),
            start,
            facts,
        )
        for unit in (1.0, 1000.0)
    ]
    assert rates[0] == pytest.approx(1000 * rates[1], rel=1e-4)


def test_a_method_that_climbs_gets_the_cautious_rate(start: Start, facts: Facts) -> None:
    climber = MethodSpec("up", "up", lambda p, rate, _: torch.optim.SGD(p, lr=rate, maximize=True), "line")
    assert base_rate(climber, start, facts) == 1 / facts.largest_curvature


def test_the_search_finds_a_rate_that_was_a_hundred_times_off(start: Start, facts: Facts) -> None:
    def build(p: list[Tensor], rate: float, facts: Facts) -> Any:
        return torch.optim.SGD(p, lr=0.01 * rate / facts.largest_curvature)

    chosen = choose_rate(MethodSpec("slow", "slow", build, "unit", search=True, batch_size=20), start, facts)
    assert chosen.factor == LARGEST_FACTOR
    assert chosen.rate == chosen.base * chosen.factor
    assert min(chosen.tried, key=lambda f: chosen.tried[f]) == chosen.factor
    # Five factors, twenty minibatches of twenty images each, and a third of the sample once for each.
    assert chosen.image_gradients == len(chosen.tried) * (20 * 20 + N // 3)


def test_a_rate_that_blows_the_map_up_is_not_chosen(start: Start, facts: Facts) -> None:
    def build(p: list[Tensor], rate: float, facts: Facts) -> Any:
        return torch.optim.SGD(p, lr=rate * 1e30)

    chosen = choose_rate(MethodSpec("wild", "wild", build, "unit", search=True, batch_size=20), start, facts)
    assert any(math.isinf(value) for value in chosen.tried.values())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_lowers_the_objective_with_its_own_step(name: str, start: Start, facts: Facts) -> None:
    spec = METHODS[name]
    rate = choose_rate(spec, start, facts).rate
    ground = Ground(start.band, start.support)
    method = GradientMethod.begin(ground, start.volume, Descent(name, rate, facts, start.objective))
    reports = []
    for _ in range(15):
        method, report = method.step(ground, Minibatch.whole(start.sample))
        reports.append(report)
    assert reports[-1].nll < reports[0].nll - 0.5
    assert all(report.image_gradients % N == 0 for report in reports)
    assert float(method.volume[start.support == 0].abs().max()) == 0
    assert method.step_size > 0
