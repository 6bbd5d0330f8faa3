"""The random start."""

from __future__ import annotations

import pytest
import torch

from hoarfrost.maths.fourier import radius_grid
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.reconstruction.starts.initial_map import N_SPHERES, SMALLEST_SIGNAL, initial_volume, random_spheres


@pytest.fixture(scope="module")
def band() -> BandModel:
    return BandModel(32, 4.0, PosePrior(0, 0), torch.eye(3, dtype=torch.float64))


def made_images(band: BandModel, amplitude: float) -> WhitenedImages:
    generator = named_generator(0, "initialise test")
    data = amplitude * torch.randn(50, band.disc.size, generator=generator, dtype=torch.complex64)
    ctf = 0.2 + torch.rand(50, band.disc.size, generator=generator)
    return WhitenedImages(data, ctf, torch.zeros(50, dtype=torch.float64))


def test_spheres_lie_inside_the_particle() -> None:
    spheres = random_spheres(32, 24.0, named_generator(0, "start"))
    assert spheres.shape == (32, 32, 32)
    assert float(spheres[radius_grid(32, 3) > 0.4 * 24].abs().max()) == 0
    assert float(spheres.max()) >= 2
    assert bool((spheres == spheres.round()).all())
    smallest, largest = (N_SPHERES * 4.19 * (24 * share) ** 3 for share in (0.06, 0.14))
    assert smallest < float(spheres.sum()) < largest


def test_the_start_is_inside_the_support_and_not_negative(band: BandModel) -> None:
    volume = initial_volume(band, made_images(band, 2.0), 0.8, named_generator(0, "start"))
    assert volume.shape == (band.box,) * 3
    assert volume.dtype == torch.float32
    assert float(volume.min()) >= 0
    assert float(volume[band.support(0.8) == 0].abs().max()) == 0
    assert float(volume.max()) > 0


@pytest.mark.parametrize("amplitude", [1.5, 2.0, 5.0])
def test_the_start_has_the_power_of_the_particles_above_the_noise(band: BandModel, amplitude: float) -> None:
    images = made_images(band, amplitude)
    volume = initial_volume(band, images, 0.8, named_generator(0, "start"))
    slices = band.operator.slices(volume)
    model = sum(
        float((images.ctf[i].square() * slices.abs().square().mean(0)).sum()) for i in range(len(images))
    ) / len(images)
    data = float(images.data.abs().square().sum()) / len(images)
    assert model == pytest.approx(data - float(band.disc.weights.sum()), rel=1e-3)


def test_particles_without_power_give_a_faint_start(band: BandModel) -> None:
    images = made_images(band, 0.1)
    volume = initial_volume(band, images, 0.8, named_generator(0, "start"))
    model = (images.ctf.square().mean(0) * band.operator.slices(volume).abs().square().mean(0)).sum()
    assert float(model) == pytest.approx(SMALLEST_SIGNAL * float(band.disc.weights.sum()), rel=1e-3)


def test_the_start_is_a_function_of_the_seed(band: BandModel) -> None:
    images = made_images(band, 2.0)
    one, same, other = (initial_volume(band, images, 0.8, named_generator(seed, "start")) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert float((one - other).norm()) > 0.3 * float(one.norm())
