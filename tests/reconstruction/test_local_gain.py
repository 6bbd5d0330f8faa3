"""Detail that folds agree on in one place and not in another is let through there, and held back here."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.fourier import radius_grid, smoothed
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.seeds import named_generator
from hoarfrost.maths.shells import filter_shells
from hoarfrost.reconstruction.estimate.local_gain import (
    CHANCE,
    WINDOW_LENGTHS,
    _hat,
    local_bands,
    local_gain,
    locally_weighted,
)

BOX, R_MAX, FOLDS = 64, 28.0, 4
# What is kept of maps up to the band limit.
KEPT = (torch.arange(BOX // 2 + 1) <= R_MAX).float()


@pytest.fixture(scope="module")
def particle() -> Tensor:
    return (radius_grid(BOX, 3) <= 0.35 * BOX).float()


def without_folds(signal: Tensor, deviation: Tensor | float, seed: int) -> Tensor:
    """Maps of one half without each fold: the signal, and noise of each fold with that deviation in the whole."""
    generator = named_generator(seed, "local gain")
    noise = torch.randn(FOLDS, BOX, BOX, BOX, generator=generator) * (deviation * math.sqrt(FOLDS))
    return torch.stack([filter_shells(signal + (noise.sum(dim=0) - own) / (FOLDS - 1), KEPT) for own in noise])


def signal_of(seed: int, particle: Tensor) -> Tensor:
    """White noise up to the band limit in the particle."""
    generator = named_generator(seed, "local signal")
    return filter_shells(torch.randn(BOX, BOX, BOX, generator=generator) * particle, KEPT)


def weighted(maps: Tensor, particle: Tensor, fsc: Tensor) -> Tensor:
    return locally_weighted(maps, fsc, particle, R_MAX)


def error_of(maps: Tensor, signal: Tensor, fsc: Tensor, particle: Tensor) -> float:
    """Of the first map, with the gain that the FSC asks for everywhere, by the signal's own norm."""
    found = filter_shells(maps[0], fsc.clamp(min=0))
    return float(((found - signal) * particle).norm() / (signal * particle).norm())


def test_bands_share_out_each_frequency() -> None:
    bands = local_bands(R_MAX)
    radii = torch.linspace(bands[0][0], R_MAX, 500, dtype=torch.float64)
    # What no gain is for is left.
    rest = 1 - torch.stack([_hat(radii, *band) for band in bands]).sum(dim=0)
    assert float(rest.min()) > -1e-9
    assert float(rest[radii > bands[0][1]].max()) < 1e-9
    assert bands[-1][1] == pytest.approx(R_MAX)
    assert local_bands(9.0) == []


def test_of_noise_power_is_that_of_folds_but_for_chance(particle: Tensor) -> None:
    maps = without_folds(torch.zeros(BOX, BOX, BOX), 1.0, 0)
    for before, centre, after in local_bands(R_MAX)[1:]:
        shells = torch.arange(BOX // 2 + 1).float()
        of_band = torch.stack([filter_shells(volume, _hat(shells, before, centre, after)) for volume in maps])
        mean, sigma = of_band.mean(dim=0), WINDOW_LENGTHS * BOX / centre
        noise = smoothed((of_band - mean).square().sum(dim=0) * (FOLDS - 1) / FOLDS, sigma)
        log_ratio = (smoothed(mean.square(), sigma) / noise).log()[particle > 0.5]
        assert abs(float(log_ratio.mean())) < CHANCE / 2
        assert float(log_ratio.std()) == pytest.approx(CHANCE, rel=0.5)


@pytest.mark.parametrize("deviation", [0.3, 1.0, 3.0])
def test_a_rigid_particle_pays_nothing(particle: Tensor, deviation: float) -> None:
    signal = signal_of(1, particle)
    maps, others = (without_folds(signal, deviation, seed) for seed in (2, 3))
    fsc = fourier_shell_correlation(maps.mean(dim=0) * particle, others.mean(dim=0) * particle)
    found = weighted(maps, particle, fsc)
    assert error_of(found, signal, fsc, particle) < 1.01 * error_of(maps, signal, fsc, particle)


def test_what_is_not_the_same_in_all_particles_is_held_back(particle: Tensor) -> None:
    x = torch.arange(BOX) - BOX // 2
    ordered = (x < 0).float().expand(BOX, BOX, BOX)
    signal = signal_of(1, particle) * ordered
    # The other side is as strong in each fold, and of another shape in each.
    deviation = 0.5 + 1.5 * (1 - ordered)
    maps, others = (without_folds(signal, deviation, seed) for seed in (2, 3))
    fsc = fourier_shell_correlation(maps.mean(dim=0) * particle, others.mean(dim=0) * particle)
    found = weighted(maps, particle, fsc)
    assert error_of(found, signal, fsc, particle) < 0.85 * error_of(maps, signal, fsc, particle)
    inside, rim = particle > 0.5, 4
    order = inside & (x < -rim).expand_as(inside)
    chaos = inside & (x > rim).expand_as(inside)
    fine = 1 - (torch.arange(BOX // 2 + 1) < 14).float()
    before, after = (filter_shells(of[0], fine) for of in (maps, found))
    assert float(after[chaos].norm()) < 0.6 * float(before[chaos].norm())
    assert float(after[order].norm()) > float(before[order].norm())


def test_gains_are_in_proportion_to_what_the_fsc_tells(particle: Tensor) -> None:
    signal, of_shells = signal_of(1, particle), torch.ones(BOX // 2 + 1)
    maps = without_folds(signal, 1.0, 2)
    for trusted in (0.1, 0.5, 0.9):
        gain = local_gain(maps, torch.full((BOX // 2 + 1,), trusted), of_shells, particle, 5.0)
        mean = maps.mean(dim=0).square() * particle
        assert float((gain * mean).sum() / mean.sum()) == pytest.approx(1.0, abs=0.05)
        assert float(gain.max()) <= 1 / trusted + 1e-6
    # Where nothing or all is trusted there is nothing to weigh.
    for trusted in (0.0, 1.0):
        assert bool((local_gain(maps, torch.full((33,), trusted), of_shells, particle, 5.0) == 1).all())
