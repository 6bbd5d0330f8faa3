"""What the posterior over poses tells of a CTF: the likelihood as a function of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.few_poses.transfer import transfer_evidence
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.simulation.phantom import make_phantom

N, R_MAX, B, M = 32, 7.0, 5, 4
DISC = FourierDisc(N, R_MAX)
PRIOR = PosePrior(shift_sigma_px=1.5, shift_extent_px=50.0)


def problem() -> tuple[LocalModel, WhitenedImages, Draws]:
    """Images of noise, and for each M poses of uneven shares, in any order."""
    generator = named_generator(3, "transfer")
    model = LocalModel(make_phantom(20, seed=1, n_blobs=5).float(), DISC, PRIOR)
    data = torch.view_as_complex(torch.randn(B, DISC.size, 2, generator=generator))
    ctf = torch.randn(B, DISC.size, generator=generator)
    images = WhitenedImages(data, ctf, torch.zeros(B, dtype=torch.float64))
    image = torch.arange(B).repeat(M)[torch.randperm(B * M, generator=generator)]
    share = torch.rand(B * M, generator=generator)
    shifts_px = torch.randn(B * M, 2, generator=generator, dtype=torch.float64)
    return model, images, Draws(image, random_rotations(B * M, generator), shifts_px, share)


def test_it_is_the_mean_of_the_likelihood_over_the_poses() -> None:
    model, images, draws = problem()
    found = transfer_evidence(model, images, draws)
    # Of any CTF, not only the one that images were whitened with.
    for ctf in (images.ctf, images.ctf.roll(1, dims=1), torch.zeros_like(images.ctf)):
        seen = WhitenedImages(images.data, ctf, images.log_constant)[draws.image]
        log_density = model.log_density(seen, draws.rotations[:, None], draws.shifts_px[:, None])[:, 0]
        expected = torch.zeros(B).index_add_(0, draws.image, draws.share * (log_density - log_prior(draws.shifts_px)))
        ours = (2 * ctf * found.match.real - ctf.square() * found.power).sum(dim=1)
        torch.testing.assert_close(ours, expected.to(ours), rtol=1e-4, atol=1e-3)


def log_prior(shifts_px: Tensor) -> Tensor:
    sigma_px = PRIOR.shift_sigma_px
    log_scale = -math.log(8 * math.pi**2 * 2 * math.pi * sigma_px**2)
    return (log_scale - shifts_px.square().sum(dim=1) / (2 * sigma_px**2)).float()


def test_an_image_without_poses_tells_nothing() -> None:
    model, images, draws = problem()
    found = transfer_evidence(model, images, draws[draws.image != 2])
    assert not bool(found.match[2].any())
    assert not bool(found.power[2].any())
    assert bool(found.power[3].any())
