"""Slices by way of planes against direct Fourier sums, their adjoint and their normal operator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hoarfrost.fourier import FourierDisc, radius_grid
from hoarfrost.geometry import random_rotations
from hoarfrost.model.plane_slices import PlaneSliceOperator
from hoarfrost.model.quadrature import make_orientation_quadrature
from hoarfrost.model.slices import SliceOperator, apply_normal, transform_normal_kernel
from hoarfrost.seeds import named_generator

GRIDS = [(16, 2.3, 10), (32, 4.4, 14), (64, 5.99, 16)]


class Problem:
    """An operator for some directions of the quadrature and a random volume that fills a ball of 95 % of its box."""

    def __init__(self, image_box: int, r_max: float, box: int, dtype: torch.dtype = torch.float64) -> None:
        generator = named_generator(0, "plane slices test")
        self.disc = FourierDisc(image_box, r_max)
        base = make_orientation_quadrature(r_max).rotated(random_rotations(1, generator)[0]).base_rotations
        in_plane = int((base[:, 2] - base[0, 2]).abs().amax(dim=1).lt(1e-9).sum())
        self.rotations = base[: 5 * in_plane]
        self.operator = PlaneSliceOperator(self.disc, box, self.rotations, dtype=dtype)
        ball = radius_grid(box, 3) <= 0.95 * box / 2
        self.volume = (torch.randn(box, box, box, generator=generator, dtype=torch.float64) * ball).to(dtype)
        shape = (len(self.rotations), self.disc.size)
        self.slices = torch.randn(shape, generator=generator, dtype=torch.complex128)
        self.weights = torch.rand(shape, generator=generator, dtype=torch.float64)
        self.ball = ball


def direct_slices(volume: Tensor, disc: FourierDisc, rotations: Tensor) -> Tensor:
    """V̂(Rᵀ(kx, ky, 0)) / N as a sum over every voxel."""
    box = volume.shape[-1]
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    places = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    points = torch.nn.functional.pad(disc.coordinates.double(), (0, 1)) @ rotations
    return torch.exp(-2j * math.pi / box * (points @ places.T)) @ (volume.double().reshape(-1) + 0j) / disc.box


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("grid", GRIDS)
def test_the_adjoint_is_the_adjoint(grid: tuple[int, float, int]) -> None:
    problem = Problem(*grid)
    everywhere = problem.volume + 1  # the corners of the box too
    forward = problem.operator.slices(everywhere)
    left = (problem.slices.conj() * forward).real.sum()
    right = (problem.operator.adjoint(problem.slices) * everywhere).sum()
    assert abs(float(left - right)) < 1e-10 * float(forward.norm() * problem.slices.norm())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("grid", GRIDS)
def test_slices_are_the_fourier_sum(grid: tuple[int, float, int], dtype: torch.dtype) -> None:
    problem = Problem(*grid, dtype=dtype)
    exact = direct_slices(problem.volume, problem.disc, problem.rotations)
    found = problem.operator.slices(problem.volume)
    assert found.dtype == (torch.complex64 if dtype == torch.float32 else torch.complex128)
    assert relative(found, exact) < 1e-2
    # Nor is it much larger at the edge of the band, where nodes are on one side only.
    by_frequency = (found - exact).abs().square().mean(dim=0).sqrt()
    assert float(by_frequency.max()) < 2e-2 * float(exact.abs().square().mean().sqrt())


def test_planes_add_little_to_the_error_of_the_window() -> None:
    problem = Problem(*GRIDS[2])
    wide = PlaneSliceOperator(problem.disc, GRIDS[2][2], problem.rotations, kernel_width=6, dtype=torch.float64)
    exact = direct_slices(problem.volume, problem.disc, problem.rotations)
    assert relative(wide.slices(problem.volume), exact) < 1e-3


def test_the_corners_of_the_box_do_not_count() -> None:
    problem = Problem(*GRIDS[0])
    corners = (radius_grid(10, 3) > 5).double()
    assert float(problem.operator.slices(corners).abs().max()) == 0
    assert float((problem.operator.adjoint(problem.slices) * corners).abs().max()) == 0


@pytest.mark.parametrize("grid", GRIDS)
def test_the_normal_operator_is_a_convolution(grid: tuple[int, float, int]) -> None:
    problem = Problem(*grid)
    operator = problem.operator
    expected = operator.adjoint(problem.weights * operator.slices(problem.volume)) * problem.ball
    linear, kernel = operator.adjoint_and_kernel(problem.slices, problem.weights)
    found = apply_normal(transform_normal_kernel(kernel), problem.volume) * problem.ball
    assert relative(found, expected) < 1e-2
    torch.testing.assert_close(linear, operator.adjoint(problem.slices))


def test_the_average_is_that_of_every_point_on_the_grid() -> None:
    problem = Problem(*GRIDS[0])
    plain = SliceOperator(problem.disc, 10, problem.rotations, kernel_width=3, dtype=torch.float64)
    found = problem.operator.average(problem.slices, problem.weights, lambda total: 1e-3 * total.max())
    expected = plain.average(problem.slices, problem.weights, lambda total: 1e-3 * total.max())
    torch.testing.assert_close(found, expected)


def test_rotations_that_are_no_product_are_refused() -> None:
    rotations = make_orientation_quadrature(2.3).base_rotations.clone()
    rotations[5] = random_rotations(1, named_generator(1, "plane slices test"))[0]
    with pytest.raises(ValueError, match="not a product of directions and in-plane angles"):
        PlaneSliceOperator(FourierDisc(16, 2.3), 10, rotations)


def test_a_box_too_small_for_the_band_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold frequencies up to r_max 6"):
        PlaneSliceOperator(FourierDisc(32, 6.0), 12, torch.eye(3, dtype=torch.float64)[None])
