"""The likelihood of several structures at once: against that of each, a finite difference, and what it reduces to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.marginal import marginalise, marginalise_with_statistics
from hoarfrost.model.all_poses.mixture import marginalise_mixture, mixture_with_statistics
from hoarfrost.model.images import WhitenedImages, whiten
from hoarfrost.model.quadrature import PosePrior

IMAGE_BOX, R_MAX, N_IMAGES = 16, 2.3, 12
LOG_SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()


@pytest.fixture(scope="module")
def band() -> BandModel:
    turn = random_rotations(1, named_generator(5, "mixture test"))[0]
    return BandModel(IMAGE_BOX, R_MAX, PosePrior(2.0, 3.2), turn, kernel_width=6, dtype=torch.float64)


@pytest.fixture(scope="module")
def slices(band: BandModel) -> list[Tensor]:
    generator = named_generator(1, "mixture test")
    volumes = torch.randn(3, band.box, band.box, band.box, generator=generator, dtype=torch.float64) / 2
    return [band.operator.slices(volume * band.support(0.7)) for volume in volumes]


@pytest.fixture(scope="module")
def images(band: BandModel, slices: list[Tensor]) -> WhitenedImages:
    """Four images of each structure at nodes of the quadrature."""
    generator = named_generator(2, "mixture test")
    size = band.disc.size
    noise = torch.randn(N_IMAGES, size, dtype=torch.complex128, generator=generator)
    ctf = 0.3 + torch.rand(N_IMAGES, size, generator=generator, dtype=torch.float64)
    nodes = torch.randint(len(slices[0]), (N_IMAGES,), generator=generator)
    clean = torch.stack([slices[i // 4][node] for i, node in enumerate(nodes.tolist())])
    return whiten(ctf * clean + 0.5 * noise, ctf, torch.full((size,), 0.25, dtype=torch.float64), band.disc)


def test_evidence_and_class_probabilities_are_those_of_bayes(
    band: BandModel, slices: list[Tensor], images: WhitenedImages
) -> None:
    each = torch.stack([marginalise(images, s, band.poses).log_evidence for s in slices], dim=1) + LOG_SHARES
    found = marginalise_mixture(images, slices, band.poses, LOG_SHARES)
    torch.testing.assert_close(found.log_evidence, each.exp().sum(dim=1).log())
    torch.testing.assert_close(found.probability, each.exp() / each.exp().sum(dim=1, keepdim=True))
    assert (found.probability.argmax(dim=1) == torch.arange(N_IMAGES) // 4).sum() >= 8


def test_one_structure_is_the_likelihood_of_one(band: BandModel, slices: list[Tensor], images: WhitenedImages) -> None:
    one, sums = marginalise_with_statistics(images, slices[0], band.poses)
    found, (of_class,) = mixture_with_statistics(images, slices[:1], band.poses, torch.zeros(1))
    assert torch.equal(found.log_evidence, one.log_evidence)
    torch.testing.assert_close(found.ess, one.ess.double())
    assert torch.equal(of_class.numerator, sums.numerator)
    assert torch.equal(of_class.weight, sums.weight)


def test_equal_structures_share_the_statistics_and_double_the_effective_poses(
    band: BandModel, slices: list[Tensor], images: WhitenedImages
) -> None:
    one, sums = marginalise_with_statistics(images, slices[0], band.poses)
    twice = [slices[0], slices[0]]
    found, of_classes = mixture_with_statistics(images, twice, band.poses, torch.full((2,), -math.log(2)))
    torch.testing.assert_close(found.log_evidence, one.log_evidence)
    torch.testing.assert_close(found.ess, 2 * one.ess.double())
    for of_class in of_classes:
        torch.testing.assert_close(of_class.numerator, sums.numerator / 2)
        torch.testing.assert_close(of_class.weight, sums.weight / 2)


def test_statistics_are_the_gradient(band: BandModel, slices: list[Tensor], images: WhitenedImages) -> None:
    generator = named_generator(3, "mixture test")
    direction = torch.randn(slices[1].shape, dtype=torch.complex128, generator=generator)
    step = 1e-5

    def nll(along: float) -> float:
        moved = [slices[0], slices[1] + along * direction, slices[2]]
        found = marginalise_mixture(images, moved, band.poses, LOG_SHARES)
        return -float(found.log_evidence.sum())

    second = mixture_with_statistics(images, slices, band.poses, LOG_SHARES)[1][1]
    residual = second.numerator - second.weight * slices[1]
    expected = -2 * float((residual.conj() * direction).real.sum())
    assert (nll(step) - nll(-step)) / (2 * step) == pytest.approx(expected, rel=1e-6)


def test_tempering_makes_structures_and_poses_alike(
    band: BandModel, slices: list[Tensor], images: WhitenedImages
) -> None:
    ess, probability = [], []
    for temperature in (1.0, 4.0, 1e6):
        found = marginalise_mixture(images.tempered(temperature), slices, band.poses, LOG_SHARES)
        ess.append(float(found.ess.median()))
        probability.append(found.probability)
    assert ess == sorted(ess)
    shares = LOG_SHARES.exp().expand(N_IMAGES, 3)
    torch.testing.assert_close(probability[-1], shares, atol=1e-3, rtol=0)
    # The likelihood of images with so much more noise, but for their constants.
    loud = WhitenedImages(images.data / 2, images.ctf / 2, images.log_constant)
    torch.testing.assert_close(probability[1], marginalise_mixture(loud, slices, band.poses, LOG_SHARES).probability)


def test_images_that_may_show_none_of_the_structures_count_for_less(
    band: BandModel, slices: list[Tensor], images: WhitenedImages
) -> None:
    generator = named_generator(3, "mixture test")
    found = marginalise_mixture(images, slices, band.poses, LOG_SHARES)
    log_none = found.log_evidence + 3 * torch.randn(N_IMAGES, generator=generator, dtype=torch.float64)
    with_none = marginalise_mixture(images, slices, band.poses, LOG_SHARES, log_none=log_none)
    shown = found.log_evidence.exp() / (found.log_evidence.exp() + log_none.exp())
    assert torch.equal(with_none.log_evidence, found.log_evidence)
    torch.testing.assert_close(with_none.probability, found.probability * shown[:, None])
    # The statistics of one image alone are those without the alternative, times the probability of a structure.
    one = images[:1], slices, band.poses, LOG_SHARES
    each = (mixture_with_statistics(*one, n)[1] for n in (None, log_none[:1]))
    for whole, reduced in zip(*each, strict=True):
        torch.testing.assert_close(reduced.numerator, whole.numerator * shown[0])
        torch.testing.assert_close(reduced.weight, whole.weight * shown[0])
