"""How strong a random start takes the noise to be: by what the images hold, and less at each minibatch."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from hoarfrost.fourier import FourierDisc
from hoarfrost.geometry import random_rotations
from hoarfrost.model.band import BandModel
from hoarfrost.model.likelihood import WhitenedImages, whiten
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.reconstruct.annealing import FIRST_NATS, LEAST_FIRST, MINIBATCHES, Annealing
from hoarfrost.reconstruct.auto import AutoStage
from hoarfrost.seeds import named_generator

DISC = FourierDisc(32, 6.0)


def images(signal: float, mask_power: float = 1.0, n: int = 4000) -> WhitenedImages:
    """Noise that a mask weakened, and so much power of signal an image in units of the noise."""
    generator = named_generator(0, "annealing test")
    noise = torch.randn(n, DISC.size, dtype=torch.complex64, generator=generator) * math.sqrt(mask_power)
    of_signal = torch.randn(n, DISC.size, dtype=torch.complex64, generator=generator)
    of_signal *= math.sqrt(signal / float(DISC.weights.sum()))
    return whiten(noise + of_signal, torch.ones(n, DISC.size), torch.ones(DISC.size), DISC)


@pytest.mark.parametrize("mask_power", [1.0, 0.7])
def test_temperature_follows_from_the_signal(mask_power: float) -> None:
    found = Annealing.of(images(40.0, mask_power), DISC, mask_power)
    assert found.temperature == pytest.approx(40 / FIRST_NATS, rel=0.05)


def test_poor_images_begin_at_the_least() -> None:
    assert Annealing.of(images(1.0), DISC, 1.0).temperature == LEAST_FIRST
    assert Annealing.of(images(0.0, 0.6), DISC, 1.0).temperature == LEAST_FIRST


def cooled(annealing: Annealing, minibatches: int) -> list[float]:
    found = []
    for _ in range(minibatches):
        found.append(annealing.temperature)
        annealing.next_minibatch()
    return found


def test_temperature_falls_evenly_to_one_and_stays_there() -> None:
    temperatures = cooled(Annealing(16.0), MINIBATCHES + 20)
    assert temperatures[0] == 16
    assert temperatures[MINIBATCHES // 2] == pytest.approx(4)
    assert temperatures[MINIBATCHES:] == pytest.approx([1.0] * 20)
    ratios = {round(b / a, 9) for a, b in itertools.pairwise(temperatures[: MINIBATCHES + 1])}
    assert len(ratios) == 1


@pytest.mark.parametrize("first", [LEAST_FIRST, 64.0])
def test_maps_are_not_judged_before_noise_is_taken_for_what_it_is(first: float) -> None:
    annealing = Annealing(first)
    cooled(annealing, MINIBATCHES - 1)
    assert annealing.is_warm
    cooled(annealing, 2)
    assert not annealing.is_warm


def stage(annealing: Annealing) -> AutoStage:
    band = BandModel(16, 2.3, PosePrior(0.0, 0.0), random_rotations(1, named_generator(0, "annealing test"))[0])
    shape = band.box, band.box, band.box
    return AutoStage(band, torch.ones(shape), torch.ones(shape), annealing=annealing)


def test_a_stage_ends_with_the_best_map_that_particles_have_seen() -> None:
    auto = stage(Annealing())
    disc, generator = auto.band.disc, named_generator(1, "annealing test")
    maps = []
    for gain, ends in ((4.0, False), (5.0, False), (4.6, False), (4.4, True)):
        data = torch.randn(20, disc.size, dtype=torch.complex64, generator=generator)
        auto.step(whiten(data, torch.ones(20, disc.size), torch.ones(disc.size), disc))
        maps.append(auto.volume.clone())
        assert auto.judged(gain) == ends
    assert auto.go_back() == 5.0
    assert torch.equal(auto.volume, maps[1])
    assert not torch.equal(maps[1], maps[3])


def test_a_warm_stage_does_not_listen() -> None:
    auto = stage(Annealing(64.0))
    assert not auto.judged(10.0)
    assert not auto.judged(1.0)
    assert auto.go_back() is None
