"""The compiled sweep over a block of scores against its equation in double precision, by torch and by plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses import cpu
from hoarfrost.model.all_poses.block_sums import BlockSums
from hoarfrost.model.all_poses.cpu import exponential, exponentiate
from hoarfrost.model.all_poses.kernels import kernels_for

B, SYMMETRIES, WIDTH = 3, 4, 37


def block(n_shifts: int, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    """Products, bias and log weights of shifts, in double precision."""
    generator = named_generator(n_shifts, "score kernel test")

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    products = spread * draw(2, B, SYMMETRIES * n_shifts, WIDTH)
    weights = draw(n_shifts) if n_shifts > 1 else torch.zeros(1, dtype=torch.float64)
    return products, spread * draw(B, SYMMETRIES, WIDTH), weights


def scores(products: Tensor, bias: Tensor, weights: Tensor) -> Tensor:
    """Of each orientation, and of that half a turn away: (2, b, rows, width)."""
    n_shifts = len(weights)
    a = products[0] + bias.repeat_interleave(n_shifts, dim=1) + weights.repeat(SYMMETRIES)[:, None]
    return torch.stack([a + products[1], a - products[1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_shifts", [1, 5])
@pytest.mark.parametrize("spread", [0.1, 3.0, 200.0])
def test_likelihoods_and_their_sums_are_those_of_the_equation(n_shifts: int, spread: float, dtype: torch.dtype) -> None:
    products, bias, weights = block(n_shifts, spread)
    expected = scores(products, bias, weights)
    found, over = products.to(dtype), bias.to(dtype)
    sums = kernels_for(found).exponentiate(found, over, weights.to(dtype))
    rounding = spread * (1e-6 if dtype == torch.float32 else 1e-14) + 3e-6 * (dtype == torch.float32) + 1e-14
    peak = expected.amax(dim=(0, 2, 3))
    torch.testing.assert_close(sums.peak.double(), peak, rtol=rounding, atol=rounding)
    assert sums.row.tolist() == expected.amax(dim=(0, 3)).argmax(dim=1).tolist()
    likelihoods = (expected - peak[:, None, None]).exp()
    lost = 1e-12  # what is cut off
    for value, plain_and_turned in (
        (found[0], likelihoods[0] + likelihoods[1]),
        (found[1], likelihoods[0] - likelihoods[1]),
        (sums.row_sums, likelihoods.sum(dim=(0, 3))),
        (sums.squares, likelihoods.square().sum(dim=(0, 2, 3))),
    ):
        torch.testing.assert_close(value.double(), plain_and_turned, rtol=50 * rounding, atol=lost + 10 * rounding)
    if n_shifts > 1:
        by_shift = found[0].view(B, SYMMETRIES, n_shifts, WIDTH)
        torch.testing.assert_close(over, by_shift.sum(dim=2), rtol=1e-5, atol=1e-12)


def test_a_bias_may_be_common_to_all_rows() -> None:
    products, _, weights = (part.float() for part in block(1, 2.0))
    common, each = products.clone(), products.clone()
    found = exponentiate(common, torch.zeros(1, 1, WIDTH), weights)
    expected = exponentiate(each, torch.zeros(B, SYMMETRIES, WIDTH), weights)
    assert torch.equal(common, each)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_exponential_is_good_to_single_precision() -> None:
    x = np.linspace(-40, 1, 20_001, dtype=np.float32)
    found = np.array([exponential(value) for value in x])
    np.testing.assert_allclose(found, np.exp(x.astype(np.float64)), rtol=4e-7)


@pytest.mark.parametrize("n_shifts", [1, 3])
def test_what_is_not_a_number_spoils_its_image_alone(n_shifts: int) -> None:
    products, bias, weights = (part.float() for part in block(n_shifts, 2.0))
    products[:, 1] = math.nan
    sums = exponentiate(products, bias, weights)
    assert bool(sums.row_sums[1].isnan().all())
    assert bool(sums.squares[1].isnan())
    assert bool(sums.row_sums[[0, 2]].isfinite().all())


@pytest.mark.parametrize("n_shifts", [1, 3])
def test_rows_far_below_the_best_are_zero(n_shifts: int) -> None:
    products, bias, weights = (part.float() for part in block(n_shifts, 1.0))
    products[0, 0, 0] += 100
    sums = exponentiate(products, bias, weights)
    assert not products[:, 0, 1:].any()
    assert not sums.row_sums[0, 1:].any()
    assert bool((sums.row_sums[1:] > 0).all())


@pytest.mark.parametrize("n_shifts", [1, 3])
def test_the_compiled_loop_does_what_it_says(n_shifts: int) -> None:
    """The same source, run by Python."""
    products, bias, weights = (part.float() for part in block(n_shifts, 4.0))
    again, again_bias = products.clone(), bias.clone()
    sums = exponentiate(products, bias, weights)
    expected = BlockSums(*(torch.empty_like(part) for part in sums))
    arrays = [part.numpy() for part in (again, again_bias, weights)]
    cpu._exponentiate.py_func(*arrays, BlockSums(*(part.numpy() for part in expected)))
    torch.testing.assert_close(products, again, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(bias, again_bias, rtol=1e-5, atol=1e-9)
    for found, wanted in zip(sums, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-9)
