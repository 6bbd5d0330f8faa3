"""The exponential–cubic prior."""

from __future__ import annotations

import torch

from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.map_prior import ExponentialCubicPrior


def test_positive_voxels_cost_in_proportion_and_negative_ones_by_the_cube() -> None:
    prior = ExponentialCubicPrior(lambda_positive=0.5, lambda_negative=0.25)
    volume = torch.tensor([1.0, 3.0, 0.0, -2.0], dtype=torch.float64).reshape(1, 2, 2)
    assert float(prior.negative_log(volume)) == 0.5 * 4 + 0.25 * 8


def test_an_empty_map_costs_nothing() -> None:
    assert float(ExponentialCubicPrior().negative_log(torch.zeros(4, 4, 4))) == 0


def test_the_gradient_is_that_of_finite_differences() -> None:
    volume = torch.randn(3, 3, 3, generator=named_generator(0, "test"), dtype=torch.float64, requires_grad=True)
    prior = ExponentialCubicPrior(lambda_positive=0.7, lambda_negative=1.3)
    assert torch.autograd.gradcheck(prior.negative_log, (volume,))
    (gradient,) = torch.autograd.grad(prior.negative_log(volume), volume)
    expected = torch.where(volume > 0, 0.7, -3 * 1.3 * volume.square())
    torch.testing.assert_close(gradient, expected.detach())


def test_it_is_the_same_prior_on_a_coarser_grid() -> None:
    # A map of one sign a time, smooth enough for both grids, and away from zero.
    prior = ExponentialCubicPrior(lambda_positive=0.5, lambda_negative=0.25)
    coarse = 3 + fourier_resize(torch.randn(8, 8, 8, generator=named_generator(1, "test"), dtype=torch.float64), 8, 1)
    fine = fourier_resize(coarse, 16)
    for sign in (1, -1):
        expected = float(prior.negative_log(sign * fine))
        assert abs(float(prior.on_grid(0.5).negative_log(sign * coarse)) / expected - 1) < 0.01


def test_curvature_is_the_second_derivative_of_each_voxel() -> None:
    prior = ExponentialCubicPrior(0.3, 0.7)
    volume = torch.tensor([-2.0, -0.5, 0.0, 1.5], dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(prior.negative_log, volume)
    torch.testing.assert_close(torch.diag(prior.curvature(volume)), hessian)
