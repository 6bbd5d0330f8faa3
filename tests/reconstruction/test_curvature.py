"""The largest curvature of the NLL against a dense matrix, and the step it gives."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import WhitenedImages, whiten
from hoarfrost.model.map_prior import ExponentialCubicPrior
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.optim.registry import Facts
from hoarfrost.reconstruction.starts.curvature import expected_kernel, largest_curvature
from hoarfrost.reconstruction.starts.gradient import Descent, GradientMethod, Objective
from hoarfrost.reconstruction.starts.method import Ground, Minibatch

IMAGE_BOX = 16


@pytest.fixture(scope="module")
def band() -> BandModel:
    return BandModel(
        IMAGE_BOX, 2.3, PosePrior(0, 0), torch.eye(3, dtype=torch.float64), kernel_width=6, dtype=torch.float64
    )


def made_images(band: BandModel, volume: Tensor | None = None, n: int = 40) -> WhitenedImages:
    generator = named_generator(0, "curvature test")
    ctf = 1.5 * torch.rand(n, band.disc.size, generator=generator, dtype=torch.float64) - 0.4
    packed = torch.randn(n, band.disc.size, generator=generator, dtype=torch.complex128)
    if volume is not None:
        slices = band.operator.slices(volume)
        packed = packed + ctf * slices[torch.randint(len(slices), (n,), generator=generator)]
    return whiten(packed, ctf, 0.5 + torch.rand(band.disc.size, generator=generator).double(), band.disc)


def dense_hessian(band: BandModel, images: WhitenedImages) -> Tensor:
    """2 Σ_j w_j Σ_k mean(c²(k)) Re a_jk a_jkᴴ over all nodes j, with a the row of the direct Fourier sum."""
    axis = torch.arange(band.box, dtype=torch.float64) - band.box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    places = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    plane = torch.nn.functional.pad(band.disc.coordinates.double(), (0, 1))
    power = images.ctf.square().mean(0)
    hessian = torch.zeros(len(places), len(places), dtype=torch.float64)
    quadrature = band.poses.orientations
    for rotations, log_weights in zip(
        quadrature.rotations().split(100), quadrature.log_weights().split(100), strict=True
    ):
        angle = 2 * math.pi / band.box * ((plane @ rotations).reshape(-1, 3) @ places.T)
        weight = (log_weights.exp()[:, None] * power).reshape(-1, 1).sqrt() / IMAGE_BOX
        for part in (angle.cos() * weight, angle.sin() * weight):
            hessian += 2 * part.T @ part
    return hessian


def test_power_iteration_finds_the_largest_eigenvalue_of_the_dense_hessian(band: BandModel) -> None:
    images = made_images(band)
    exact = float(torch.linalg.eigvalsh(dense_hessian(band, images))[-1])
    found = largest_curvature(band, images, named_generator(0, "curvature"))
    assert found == pytest.approx(exact, rel=0.02)
    assert largest_curvature(band, images, named_generator(1, "curvature"), 300) == pytest.approx(exact, rel=1e-3)


def test_the_kernel_counts_every_orientation_once(band: BandModel) -> None:
    images = made_images(band)
    centre = float(expected_kernel(band, images)[(band.box,) * 3])
    # h(0) = Σ w_p / N²
    assert centre == pytest.approx(float(images.ctf.square().mean(0).sum()) / IMAGE_BOX**2, rel=1e-4)


def sgd(ground: Ground, start: Tensor, rate: float, n_images: int) -> GradientMethod:
    objective = Objective(ExponentialCubicPrior(), n_images)
    return GradientMethod.begin(ground, start, Descent("sgd", rate, Facts(1 / rate, n_batches=1), objective))


def test_gradient_descent_with_that_step_lowers_the_likelihood_at_every_step(band: BandModel) -> None:
    support = band.support(0.8)
    generator = named_generator(3, "curvature test")
    truth = 2 * torch.rand(support.shape, generator=generator, dtype=torch.float64) * support
    images = made_images(band, truth)
    start = 2 * torch.rand(support.shape, generator=generator, dtype=torch.float64)
    curvature = largest_curvature(band, images, named_generator(0, "c"))
    ground = Ground(band, support)
    method = sgd(ground, start, 1 / curvature, len(images))
    assert method.step_size == pytest.approx(1 / curvature)
    values = []
    for _ in range(12):
        method, report = method.step(ground, Minibatch.whole(images))
        values.append(report.nll)
    assert all(later < earlier for earlier, later in itertools.pairwise(values))
    assert values[-1] < values[0] - 0.05
    assert method.step_size < 1 / curvature
    assert method.sized(0.1).step_size > 0.5 / curvature


def test_gradient_descent_leaves_the_map_inside_its_support(band: BandModel) -> None:
    support = band.support(0.8)
    images = made_images(band)
    ground = Ground(band, support)
    method = sgd(ground, support, 1 / largest_curvature(band, images, named_generator(0, "c")), len(images))
    for _ in range(3):
        method, _ = method.step(ground, Minibatch.whole(images))
    assert float(method.volume[support == 0].abs().max()) == 0
