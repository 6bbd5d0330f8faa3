"""The likelihood of a random signal of known spectrum: against the normal density, and found again from its images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.images import WhitenedImages, whiten
from hoarfrost.model.outliers import Outliers, moments, n_shells

DISC = FourierDisc(16, 4.6)
NOISE = 0.7
MEAN = torch.tensor([3.0, 1.5, 0.5, 0.0, 0.0], dtype=torch.float64)
VARIANCE = torch.tensor([0.5, 1.0, 0.8, 0.3, 0.1], dtype=torch.float64)


def simulated(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Packed images of a random signal in noise, and their CTFs: (n, K) each."""
    generator = named_generator(seed, "outliers test")
    ctf = 0.2 + torch.rand(n, DISC.size, generator=generator, dtype=torch.float64)
    unit = [torch.randn(n, DISC.size, generator=generator, dtype=torch.complex128) for _ in range(2)]
    signal = MEAN[DISC.shells] + VARIANCE[DISC.shells].sqrt() * unit[0]
    return ctf * signal + math.sqrt(NOISE) * unit[1], ctf


def whitened(packed: Tensor, ctf: Tensor) -> WhitenedImages:
    return whiten(packed, ctf, torch.full((DISC.size,), NOISE, dtype=torch.float64), DISC)


def test_the_ratio_is_that_of_normal_densities() -> None:
    packed, ctf = simulated(5)
    variance = NOISE + ctf.square() * VARIANCE[DISC.shells]
    of_other = -(packed - ctf * MEAN[DISC.shells]).abs().square() / variance - (math.pi * variance).log()
    of_noise = -packed.abs().square() / NOISE - math.log(math.pi * NOISE)
    expected = ((of_other - of_noise) * DISC.weights).sum(dim=1)
    found = Outliers(MEAN, VARIANCE).log_ratio(whitened(packed, ctf), DISC, mask_power=1.0)
    torch.testing.assert_close(found, expected)


def test_no_signal_is_noise() -> None:
    zero = torch.zeros(n_shells(DISC), dtype=torch.float64)
    assert not Outliers(zero, zero).log_ratio(whitened(*simulated(3)), DISC, mask_power=0.8).any()


def test_a_spectrum_is_found_from_the_images_that_count() -> None:
    packed, ctf = simulated(20_000)
    packed[::2] *= 100
    share = (torch.arange(len(packed)) % 2).double()
    found = Outliers.of(moments(whitened(packed, ctf), DISC, share, mask_power=1.0))
    torch.testing.assert_close(found.mean[1:], MEAN[1:], atol=0.03, rtol=0.0)
    torch.testing.assert_close(found.variance[1:], VARIANCE[1:], atol=0.05, rtol=0.0)


def test_moments_of_parts_add_up() -> None:
    packed, ctf = simulated(10)
    share = torch.rand(10, generator=named_generator(1, "outliers test"), dtype=torch.float64)
    parts = [moments(whitened(packed[p], ctf[p]), DISC, share[p], 0.9) for p in (slice(0, 3), slice(3, 10))]
    torch.testing.assert_close(parts[0] + parts[1], moments(whitened(packed, ctf), DISC, share, 0.9))


@pytest.mark.parametrize("mask_power", [1.0, 0.6])
def test_noise_behind_a_mask_is_not_taken_for_signal(mask_power: float) -> None:
    """Noise of that share of its power has no variance left, and counts neither for nor against an empty spectrum."""
    generator = named_generator(2, "outliers test")
    noise = torch.randn(5000, DISC.size, generator=generator, dtype=torch.complex128)
    ctf = torch.ones(5000, DISC.size, dtype=torch.float64)
    images = whitened(math.sqrt(mask_power * NOISE) * noise, ctf)
    found = Outliers.of(moments(images, DISC, torch.ones(5000, dtype=torch.float64), mask_power))
    assert float(found.variance[1:].max()) < 0.03


def test_new_shells_are_taken_from_another_spectrum() -> None:
    coarse, fine = Outliers(MEAN[:3], VARIANCE[:3]), Outliers(MEAN + 1, VARIANCE + 1)
    extended = coarse.extended(fine)
    assert torch.equal(extended.mean, torch.cat([MEAN[:3], MEAN[3:] + 1]))
    assert torch.equal(extended.variance, torch.cat([VARIANCE[:3], VARIANCE[3:] + 1]))
