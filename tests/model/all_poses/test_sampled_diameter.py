"""Orientations are as fine as the particle's diameter asks for: the sums of a small one stay what they are."""

from __future__ import annotations

import pytest
import torch

from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.marginal import marginalise_with_statistics
from hoarfrost.model.images import whiten
from hoarfrost.model.quadrature import PosePrior, make_orientation_quadrature, sampled_r_max
from hoarfrost.simulation.phantom import make_phantom

BOX, R_MAX = 48, 7.0
PRIOR = PosePrior(0.0, 0.0)
# What an image holds of the particle, as clear images of particles do at a low band limit.
NATS = 60.0


@pytest.mark.parametrize("diameter", [0.4, 0.6, 0.8, 1.0])
def test_orientations_go_as_the_cube_of_the_diameter(diameter: float) -> None:
    full, fewer = (make_orientation_quadrature(sampled_r_max(12.0, d)).n_nodes for d in (1.0, diameter))
    assert 0.7 * diameter**3 < fewer / full < 1.3 * diameter**3
    # A particle is never larger than its box.
    assert sampled_r_max(12.0, 1.3) == 12.0


@pytest.mark.parametrize("diameter", [0.5, 0.7])
def test_sums_over_fewer_orientations_are_those_over_all_for_a_small_particle(diameter: float) -> None:
    generator = named_generator(0, "sampled diameter")
    turn = random_rotations(1, generator)[0]
    bands = {
        share: BandModel(BOX, R_MAX, PRIOR, turn, dtype=torch.float64, diameter=share) for share in (1.0, diameter)
    }
    fine = bands[1.0]
    phantom = fourier_resize(make_phantom(BOX, seed=3, n_blobs=12), fine.box, R_MAX).to(torch.float64)
    # What the phantom has within the ball of the diameter.
    volume = phantom * fine.support(diameter)
    volume *= (NATS / fine.operator.slices(volume).abs().square().sum(dim=1).mean()) ** 0.5
    of_images = BandModel(BOX, R_MAX, PRIOR, random_rotations(1, generator)[0], dtype=torch.float64)
    slices = of_images.operator.slices(volume)[:: len(of_images.operator.slices(volume)) // 12]
    ctf = torch.ones(len(slices), fine.disc.size, dtype=torch.float64)
    noise = torch.complex(*torch.randn(2, *slices.shape, generator=generator, dtype=torch.float64)) / 2**0.5
    images = whiten(slices.to(noise.dtype) + noise, ctf, torch.ones(fine.disc.size, dtype=torch.float64), fine.disc)

    def evidence(band: BandModel) -> torch.Tensor:
        return marginalise_with_statistics(images, band.operator.slices(volume), band.poses)[0].log_evidence

    of_few, of_all = evidence(bands[diameter]), evidence(fine)
    assert bands[diameter].poses.orientations.n_base < 1.2 * diameter**3 * fine.poses.orientations.n_base
    assert float((of_all - images.log_constant).mean()) > 20
    assert float((of_few - of_all).mean().abs()) < 0.1
    assert float((of_few - of_all).std()) < 0.5
