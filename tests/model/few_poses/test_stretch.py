"""What images tell of their stretch: the slope and the curvature of the likelihood as a function of it."""

from __future__ import annotations

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.few_poses.stretch import StretchQuadratics, stretch_matrix, stretch_quadratics
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.simulation.phantom import make_phantom

BOX, R_MAX, B, M = 32, 9.0, 6, 3
DISC = FourierDisc(BOX, R_MAX)
TRUE = torch.tensor([0.03, -0.02], dtype=torch.float64)


def stretched(rotations: Tensor, stretch: Tensor) -> Tensor:
    turn = torch.eye(3, dtype=torch.float64).repeat(*stretch.shape[:-1], 1, 1)
    turn[..., :2, :2] = stretch_matrix(stretch)
    return turn @ rotations


def problem() -> tuple[LocalModel, WhitenedImages, Draws]:
    """Images without noise of slices that are stretched by `TRUE`, with M poses each of uneven shares."""
    generator = named_generator(5, "stretch")
    model = LocalModel(make_phantom(24, seed=1, n_blobs=5).float(), DISC, PosePrior(1.5, 50.0))
    rotations = random_rotations(B, generator)
    shifts_px = torch.randn(B, 2, generator=generator, dtype=torch.float64)
    # Beyond the band limit nothing is known of a slice, stretched or not.
    ctf = torch.randn(B, DISC.size, generator=generator) * (DISC.radii < R_MAX - 0.5)
    data = model.slices(stretched(rotations, TRUE), shifts_px) * ctf
    images = WhitenedImages(data, ctf, torch.zeros(B, dtype=torch.float64))
    image = torch.arange(B).repeat(M)
    share = torch.rand(B * M, generator=generator)
    near = rotations[image] @ torch.linalg.matrix_exp(0.02 * skew(torch.randn(B * M, 3, generator=generator).double()))
    return model, images, Draws(image, near, shifts_px[image], share)


def skew(v: Tensor) -> Tensor:
    x, y, z = v.unbind(1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=1).view(-1, 3, 3)


def log_likelihood(model: LocalModel, images: WhitenedImages, draws: Draws, stretch: Tensor) -> Tensor:
    """Σ γ −‖y − c S P V‖² of each image, from its definition."""
    slices = model.slices(stretched(draws.rotations, stretch.expand(len(draws.image), 2)), draws.shifts_px)
    misfit = (images.data[draws.image] - images.ctf[draws.image] * slices).abs().square().sum(dim=1)
    return torch.zeros(B).index_add_(0, draws.image, -draws.share * misfit).double()


def test_the_slope_is_that_of_the_likelihood() -> None:
    model, images, draws = problem()
    found, step, axes = stretch_quadratics(model, images, draws), 0.004, torch.eye(2, dtype=torch.float64)
    for i in range(2):
        ahead, behind = (log_likelihood(model, images, draws, sign * step * axes[i]) for sign in (1, -1))
        numerical = (ahead - behind) / (2 * step)
        assert float((found.slope[:, i] - numerical).norm() / numerical.norm()) < 0.02
    assert torch.equal(found.curvature, found.curvature.mT)
    assert bool((torch.linalg.eigvalsh(found.curvature) > 0).all())


def test_a_step_from_no_stretch_finds_it() -> None:
    model, images, draws = problem()
    found = stretch_quadratics(model, images, draws)
    step = torch.linalg.solve(found.curvature.sum(dim=0), found.slope.sum(dim=0))
    torch.testing.assert_close(step, TRUE, rtol=0, atol=0.006)
    gains = found.gains(step.expand(B, 2)).sum()
    assert float(gains) > 0
    assert float(gains) > float(found.gains(1.2 * step.expand(B, 2)).sum())


def test_an_image_without_poses_tells_nothing() -> None:
    model, images, draws = problem()
    found = stretch_quadratics(model, images, draws[draws.image != 2])
    assert not bool(found.slope[2].any())
    assert not bool(found.curvature[2].any())
    assert bool(found.slope[3].any())


def test_particles_that_were_not_looked_at_gain_nothing() -> None:
    none = StretchQuadratics.none(4)
    assert none.gains(torch.ones(4, 2, dtype=torch.float64)).tolist() == [0.0] * 4
