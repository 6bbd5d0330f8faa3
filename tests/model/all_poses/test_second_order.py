"""Exact derivatives of the sum over all poses: against torch's own, twice backward, and against the compiled sums."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses import second_order
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.marginal import marginalise_with_statistics
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import PosePrior

N_IMAGES = 5


def make(dtype: torch.dtype = torch.float64) -> tuple[BandModel, WhitenedImages, Tensor, Tensor]:
    """A model with shifts, images, and two sets of slices."""
    generator = named_generator(0, "second order")
    turn = random_rotations(1, generator)[0]
    band = BandModel(16, 2.3, PosePrior(2.0, 3.2), turn, dtype=dtype)
    assert len(band.poses.shifts.shifts_px) > 1
    volumes = torch.randn(2, band.box, band.box, band.box, generator=generator, dtype=torch.float64).to(dtype)
    slices, direction = (band.operator.slices(volume) for volume in volumes)
    data = torch.randn(N_IMAGES, band.disc.size, dtype=torch.complex128, generator=generator)
    data[:, 0] = data[:, 0].real.to(data.dtype)
    ctf = torch.rand(N_IMAGES, band.disc.size, dtype=torch.float64, generator=generator)
    images = WhitenedImages(3 * data, ctf, torch.randn(N_IMAGES, dtype=torch.float64, generator=generator))
    return band, images.in_precision(dtype), slices, direction


def plain_nll(band: BandModel, images: WhitenedImages, slices: Tensor) -> Tensor:
    """−Σ log p, pose by pose from all nodes of the quadrature, for torch to differentiate."""
    poses = band.poses
    total = torch.zeros((), dtype=torch.float64)
    for y, c, constant in zip(images.data, images.ctf, images.log_constant, strict=True):
        scores = []
        for index, sign in zip(poses.permutation, poses.conjugate_sign, strict=True):
            for phases, log_weight in zip(poses.conjugate_phases, poses.shift_log_weights, strict=True):
                z = (c * y * phases)[index]
                z = torch.complex(z.real, z.imag * sign)
                linear = 2 * (z.conj() * slices).real.sum(1)
                power = (c.square()[index] * (slices * slices.conj()).real).sum(1)
                scores.append(linear - power + log_weight + poses.base_log_weights)
        total = total - torch.stack(scores).flatten().logsumexp(0) - constant
    return total


def test_derivatives_are_those_of_a_sum_pose_by_pose() -> None:
    band, images, slices, direction = make()
    leaf = slices.detach().requires_grad_()
    nll = plain_nll(band, images, leaf)
    (gradient,) = torch.autograd.grad(nll, leaf, create_graph=True)
    (product,) = torch.autograd.grad((gradient.conj() * direction).real.sum(), leaf)
    found, of_slices = second_order.evidence_and_gradient(images, slices, band.poses)
    torch.testing.assert_close(-found.sum(), nll.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(found, second_order.log_evidence(images, slices, band.poses), rtol=0, atol=0)
    assert float((of_slices - gradient.detach()).norm()) < 1e-12 * float(of_slices.norm())
    bent = second_order.hessian_product(images, slices, direction, band.poses)
    assert float((bent - product).norm()) < 1e-12 * float(product.norm())


def test_compiled_sums_are_the_same() -> None:
    band, images, slices, _ = make(torch.float32)
    found, gradient = second_order.evidence_and_gradient(images, slices, band.poses)
    posterior, statistics = marginalise_with_statistics(images, slices, band.poses)
    torch.testing.assert_close(found, posterior.log_evidence, rtol=1e-6, atol=1e-4)
    compiled = -2 * (statistics.numerator - statistics.weight * slices)
    assert float((gradient - compiled).norm()) < 1e-5 * float(gradient.norm())


def test_images_go_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    band, images, slices, direction = make()
    whole = second_order.hessian_product(images, slices, direction, band.poses)
    monkeypatch.setattr(second_order, "SCORES_AT_ONCE", 1)
    torch.testing.assert_close(second_order.hessian_product(images, slices, direction, band.poses), whole)
