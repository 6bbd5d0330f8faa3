"""Normalisation, the mask, and the noise spectrum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc, radius_grid
from hoarfrost.maths.seeds import named_generator
from hoarfrost.particles.preprocess import (
    FIRST_USABLE_SHELL,
    Preprocessor,
    estimate_noise_spectrum,
    find_dust,
    remove_dust,
)


def noise(n: int, box: int, seed: int = 0) -> Tensor:
    return torch.randn(n, box, box, generator=named_generator(seed, "preprocess test"))


def test_normalising_gives_the_background_mean_0_and_deviation_1() -> None:
    preprocessor = Preprocessor(box=32, diameter_px=20, extent_px=3)
    images = 5 + 3 * noise(4, 32)
    images += 40 * (radius_grid(32, 2) <= 9)  # the particle has no say
    normalised = preprocessor.normalise(images)
    background = normalised[:, preprocessor.background()]
    torch.testing.assert_close(background.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(background.std(1), torch.ones(4), atol=1e-5, rtol=0)
    assert float(normalised[:, 16, 16].min()) > 5


def test_normalising_forgets_scale_and_offset() -> None:
    preprocessor = Preprocessor(box=24, diameter_px=16, extent_px=2)
    images = noise(3, 24)
    torch.testing.assert_close(
        preprocessor.normalise(images), preprocessor.normalise(7 * images - 2), atol=1e-4, rtol=1e-4
    )


def test_a_background_of_one_value_stays_finite() -> None:
    images = torch.zeros(1, 24, 24)
    images[0, 12, 12] = 1
    assert bool(Preprocessor(24, 16, 2).normalise(images).isfinite().all())


@pytest.mark.parametrize(("diameter_px", "share"), [(16.0, 1 - 0.196), (32.0, 1 - 0.785), (60.0, 1 - 0.785)])
def test_the_background_is_what_lies_outside_the_particle(diameter_px: float, share: float) -> None:
    preprocessor = Preprocessor(box=32, diameter_px=diameter_px, extent_px=2)
    background = preprocessor.background()
    assert float(background.double().mean()) == pytest.approx(share, abs=0.03)
    assert bool(background[0, 0])
    assert not bool(background[16, 16])


@pytest.mark.parametrize(("diameter_px", "extent_px", "radius"), [(16, 2, 10), (10, 0, 5), (30, 6, 13), (32, 32, 13)])
def test_the_mask_leaves_room_for_particle_and_offsets_and_stays_in_the_box(
    diameter_px: float, extent_px: float, radius: float
) -> None:
    mask = Preprocessor(32, diameter_px, extent_px).mask()
    distance = radius_grid(32, 2)
    assert mask.dtype == torch.float32
    assert bool((mask[distance <= radius] == 1).all())
    assert float(mask[distance >= radius + 3].abs().max()) < 1e-6
    assert float(mask[0].max()) < 1e-6


@pytest.mark.parametrize("diameter_px", [20.0, 40.0, 48.0])
def test_the_spectrum_of_white_noise_is_one_in_every_shell(diameter_px: float) -> None:
    preprocessor = Preprocessor(48, diameter_px, 3)
    spectrum = estimate_noise_spectrum(preprocessor.normalise(noise(1000, 48)), preprocessor)
    assert spectrum.shape == (24,)
    assert spectrum.dtype == torch.float64
    # A shell of 6 k / 2 coefficients, fewer of them independent, in 1,000 images: within five deviations.
    assert float((spectrum - 1).abs().max()) < 0.06
    assert float(spectrum.mean()) == pytest.approx(1, abs=0.01)


def test_the_spectrum_of_coloured_noise_is_found() -> None:
    disc = FourierDisc(48, 23.9)
    variance = 0.5 + 2 / (1 + (disc.radii / 10).square())
    images = disc.unpack(disc.pack(noise(500, 48)) * variance.sqrt())
    spectrum = estimate_noise_spectrum(images, Preprocessor(48, 30, 3))
    shells = torch.arange(FIRST_USABLE_SHELL, 22, dtype=torch.float64)
    expected = 0.5 + 2 / (1 + (shells / 10).square())
    assert float((spectrum[FIRST_USABLE_SHELL:22] / expected - 1).abs().max()) < 0.07


def test_shells_that_normalising_empties_take_their_neighbours_value() -> None:
    spectrum = estimate_noise_spectrum(noise(50, 32), Preprocessor(32, 20, 3))
    assert spectrum[:FIRST_USABLE_SHELL].tolist() == [float(spectrum[FIRST_USABLE_SHELL])] * FIRST_USABLE_SHELL


def test_the_particle_does_not_count_as_noise() -> None:
    preprocessor = Preprocessor(48, 24, 3)
    images = noise(200, 48)
    particle = 30 * (radius_grid(48, 2) <= 11).float()
    before, after = (estimate_noise_spectrum(i, preprocessor) for i in (images, images + particle))
    torch.testing.assert_close(before, after, rtol=1e-4, atol=0)


@pytest.mark.parametrize("box", [48, 128])
def test_noise_is_hardly_ever_taken_for_dust(box: int) -> None:
    touched = find_dust(noise(1000, box)).flatten(1).any(dim=1).double().mean()
    assert 0.001 < float(touched) < 0.03


def test_dust_becomes_the_mean_of_the_rest_and_no_more_than_dust_does() -> None:
    images = 7 + noise(20, 48)
    dirty = images.clone()
    dirty[:, 10:13, 30:33] -= 12  # a gold bead
    dirty[:, 40, 5] += 30  # a hot pixel, which hides the bead at first
    cleaned = remove_dust(dirty)
    kept = torch.ones(48, 48, dtype=torch.bool)
    kept[8:15, 28:35] = False
    kept[39:42, 4:7] = False
    torch.testing.assert_close(cleaned[:, 10:13, 30:33], torch.full((20, 3, 3), 7.0), atol=0.15, rtol=0)
    torch.testing.assert_close(cleaned[:, 40, 5], torch.full((20,), 7.0), atol=0.15, rtol=0)
    clean = (cleaned == dirty)[:, kept].double().mean()
    assert float(clean) > 0.999
    normalised = Preprocessor(48, 30, 2).normalise(dirty)
    assert float(normalised.abs().max()) < 6


def test_particles_so_clear_that_they_look_like_dust_can_be_left_alone() -> None:
    images = 0.01 * noise(5, 48) + (radius_grid(48, 2) < 2.5)
    assert bool(find_dust(images)[:, 24, 24].all())
    left = Preprocessor(48, 30, 2, removes_dust=False).normalise(images)
    assert float(left[:, 24, 24].min()) > 50


@pytest.mark.parametrize("box", [33, 35])
def test_an_odd_box_has_a_noise_spectrum(box: int) -> None:
    """Its last coefficients round to a shell that it does not have."""
    images = torch.randn(60, box, box, generator=torch.Generator().manual_seed(0))
    preprocessor = Preprocessor(box, 0.7 * box, 1.0)
    spectrum = estimate_noise_spectrum(preprocessor.normalise(images), preprocessor)
    assert len(spectrum) == box // 2
    torch.testing.assert_close(spectrum, torch.ones_like(spectrum), atol=0.15, rtol=0)
