"""How strong a random start takes the noise to be: by what the images hold, and less at each minibatch."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from hoarfrost.fourier import FourierDisc
from hoarfrost.model.likelihood import WhitenedImages, whiten
from hoarfrost.reconstruct.annealing import FIRST_NATS, MINIBATCHES, Annealing
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
    assert found.first == pytest.approx(40 / FIRST_NATS, rel=0.05)


def test_images_with_little_signal_are_taken_as_they_are() -> None:
    assert Annealing.of(images(1.0), DISC, 1.0).first == 1
    assert Annealing.of(images(0.0, 0.6), DISC, 1.0).first == 1


def test_temperature_falls_evenly_to_one_and_stays_there() -> None:
    annealing = Annealing(16.0)
    temperatures = [annealing.temperature(t) for t in range(MINIBATCHES + 20)]
    assert temperatures[0] == 16
    assert temperatures[MINIBATCHES // 2] == pytest.approx(4)
    assert temperatures[MINIBATCHES:] == [1.0] * 20
    ratios = {round(b / a, 9) for a, b in itertools.pairwise(temperatures[: MINIBATCHES + 1])}
    assert len(ratios) == 1
