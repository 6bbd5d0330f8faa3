"""Conjugate gradients, and the map that exact statistics ask for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.fourier import centred_window
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.maths.shells import filter_shells, shells_of_half_spectrum
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.slice_bank import Statistics
from hoarfrost.model.quadratic import Quadratic
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.model.slices.operator import apply_normal, transform_normal_kernel
from hoarfrost.reconstruction.estimate.m_step import (
    Curvature,
    MStep,
    conjugate_gradients,
    mean_curvature,
    wiener_ridge,
)


def positive_definite(n: int, generator: torch.Generator) -> Tensor:
    root = torch.randn(n, n, generator=generator, dtype=torch.float64)
    return root @ root.T + 0.1 * torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_conjugate_gradients_solve_a_random_system(preconditioned: bool) -> None:
    generator = named_generator(0, "cg test")
    matrix = positive_definite(20, generator)
    goal = torch.randn(20, generator=generator, dtype=torch.float64)
    diagonal = matrix.diagonal() if preconditioned else torch.ones(20, dtype=torch.float64)
    found = conjugate_gradients(
        lambda v: matrix @ v,
        matrix @ goal,
        torch.zeros(20, dtype=torch.float64),
        lambda v: v / diagonal,
        iterations=100,
        tolerance=1e-10,
    )
    torch.testing.assert_close(found, goal, rtol=1e-6, atol=1e-7)


def test_conjugate_gradients_need_as_many_steps_as_there_are_different_eigenvalues() -> None:
    diagonal = torch.tensor([1.0, 1, 5, 5, 9, 9], dtype=torch.float64)
    right_side = torch.randn(6, generator=named_generator(0, "cg test"), dtype=torch.float64)
    found = conjugate_gradients(
        lambda v: diagonal * v, right_side, torch.zeros(6).double(), lambda v: v, iterations=3, tolerance=0.0
    )
    torch.testing.assert_close(found, right_side / diagonal)


def test_conjugate_gradients_stop_at_once_at_the_solution() -> None:
    calls = []

    def operator(v: Tensor) -> Tensor:
        calls.append(v)
        return 2 * v

    start = torch.ones(3)
    found = conjugate_gradients(operator, 2 * start, start, lambda v: v, iterations=10)
    assert torch.equal(found, start)
    assert len(calls) == 1


def test_conjugate_gradients_take_no_step_where_the_operator_has_less_than_it_can() -> None:
    """As a kernel that was interpolated has: a step along what is nearly zero by mistake is as long as it is wrong."""
    diagonal = torch.tensor([1.0, 2.0, 1e-6], dtype=torch.float64)
    right_side = torch.ones(3, dtype=torch.float64)
    nothing = torch.zeros(3, dtype=torch.float64)
    free, bounded = (
        conjugate_gradients(lambda v: diagonal * v, right_side, nothing, lambda v: v, iterations=9, least_curvature=r)
        for r in (0.0, 1e-3)
    )
    assert free[2] == pytest.approx(1e6)
    assert bounded.norm() < 10


def test_conjugate_gradients_leave_nothing_as_nothing() -> None:
    zero = torch.zeros(3)
    found = conjugate_gradients(lambda v: 2 * v, zero, zero, lambda v: v, iterations=10)
    assert torch.equal(found, zero)


@pytest.fixture(scope="module")
def band() -> BandModel:
    turn = random_rotations(1, named_generator(0, "m step test"))[0]
    return BandModel(32, 4.0, PosePrior(0, 0), turn, kernel_width=4, dtype=torch.float64)


@pytest.fixture(scope="module")
def truth(band: BandModel) -> Tensor:
    """Smooth positive blobs inside 0.8 of the box."""
    axis = torch.arange(band.box, dtype=torch.float64) - band.box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    volume = torch.zeros(band.box, band.box, band.box, dtype=torch.float64)
    for cx, cy, cz, height in [(2, 1, 0, 1.0), (-2, 0, 1, 0.7), (0, -2, -2, 1.3)]:
        volume += height * torch.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / 4)
    return volume * band.support(0.8)


def exact_statistics(band: BandModel, truth: Tensor) -> Quadratic:
    """What infinitely many images with known, uniform poses would give."""
    slices = band.operator.slices(truth)
    weight = band.poses.base_log_weights.exp()[:, None] * torch.linspace(1, 2, band.disc.size).double()
    return band.quadratic(Statistics(weight * slices, weight), 1)


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_exact_statistics_give_the_map_back(band: BandModel, truth: Tensor, start: float) -> None:
    support = band.support(0.8)
    found = MStep(support, iterations=30)(exact_statistics(band, truth), start * support)
    assert float(found.min()) >= 0
    assert float(found[support == 0].abs().max()) == 0
    fsc = fourier_shell_correlation(found, truth)
    assert float(fsc[:5].min()) > 0.995
    slices, expected = band.operator.slices(found), band.operator.slices(truth)
    assert float((slices - expected).norm() / expected.norm()) < 0.05  # what the ridge takes away


def test_a_few_iterations_from_the_last_map_are_enough(band: BandModel, truth: Tensor) -> None:
    support, statistics = band.support(0.8), exact_statistics(band, truth)
    solve = MStep(support)
    found = torch.zeros_like(truth)
    for _ in range(3):
        found = solve(statistics, found)
    assert float(fourier_shell_correlation(found, truth)[:5].min()) > 0.99


def test_voxels_that_would_turn_negative_are_zero(band: BandModel, truth: Tensor) -> None:
    exact = exact_statistics(band, truth)
    found = MStep(band.support(0.8))(Quadratic(-exact.linear, exact.kernel), torch.zeros_like(truth))
    assert float(found.min()) >= 0
    assert float(found.norm()) < 0.3 * float(truth.norm())


def test_a_map_may_turn_negative_where_it_is_let() -> None:
    n = 10
    kernel = torch.zeros(2 * n, 2 * n, 2 * n, dtype=torch.float64)
    kernel[n, n, n] = 2.0  # T is twice the identity
    linear = torch.randn(n, n, n, generator=named_generator(7, "m step test"), dtype=torch.float64)
    support = torch.ones_like(linear)
    free = MStep(support, positive=False)(Quadratic(linear, kernel), torch.zeros_like(linear))
    torch.testing.assert_close(free, linear / 2, rtol=2e-3, atol=1e-3)
    bound = MStep(support)(Quadratic(linear, kernel), torch.zeros_like(linear))
    torch.testing.assert_close(bound, (linear / 2).clamp(min=0), rtol=2e-3, atol=1e-3)


def test_the_curvature_of_much_the_same_statistics_leads_to_the_same_map() -> None:
    band = BandModel(32, 5.0, PosePrior(0.0, 0.0), random_rotations(1, named_generator(0, "alike test"))[0])
    generator, support = named_generator(1, "alike test"), band.support(0.85)
    weight = torch.rand(2, band.operator.n_slices, band.disc.size, generator=generator)
    kernel, alike = (band.operator.normal_kernel(of) for of in (weight[0], 0.75 * weight[0] + 0.1 * weight[1]))
    truth = filter_shells(torch.randn(band.box, band.box, band.box, generator=generator), torch.ones(5)) * support
    statistics = Quadratic(apply_normal(transform_normal_kernel(kernel), truth), kernel)
    nothing = torch.zeros_like(support)
    own = MStep(support, positive=False, iterations=40)(statistics, nothing)
    lent = MStep(support, positive=False, curvature=Curvature.of(alike, support), iterations=40)(statistics, nothing)
    assert float((lent - own).norm() / own.norm()) < 5e-3


def test_the_mean_curvature_is_that_of_waves_inside_the_support() -> None:
    band = BandModel(32, 5.0, PosePrior(0.0, 0.0), random_rotations(1, named_generator(0, "curvature test"))[0])
    generator = named_generator(1, "curvature test")
    weight = torch.rand(band.operator.n_slices, band.disc.size, generator=generator)
    kernel = band.operator.normal_kernel(weight)
    support = band.support(0.85)
    found = mean_curvature(kernel, support)
    spectrum = transform_normal_kernel(kernel)
    axis = (torch.arange(band.box) - band.box // 2) * (2 * torch.pi / band.box)
    for kx, ky, kz in ((0, 0, 0), (1, 0, 0), (2, -1, 1), (0, 3, 2), (4, 1, 0)):
        angle = kz * axis[:, None, None] + ky * axis[:, None] + kx * axis
        direct = sum(
            float((wave * support * apply_normal(spectrum, wave * support)).sum())
            for wave in (angle.cos(), angle.sin())
        )
        # A ball of voxels is not quite a ball.
        assert float(found[kz, ky, kx]) == pytest.approx(direct / float(support.sum()), rel=0.08)


def test_the_kernel_need_be_no_wider_than_the_support() -> None:
    band = BandModel(48, 9.0, PosePrior(0.0, 0.0), random_rotations(1, named_generator(0, "curvature test"))[0])
    generator, support = named_generator(1, "curvature test"), band.support(0.4)
    weight = torch.rand(band.operator.n_slices, band.disc.size, generator=generator)
    kernel = band.operator.normal_kernel(weight)
    width = 12
    narrow = centred_window(kernel, 2 * width)
    torch.testing.assert_close(mean_curvature(narrow, support), mean_curvature(kernel, support), rtol=1e-4, atol=1e-3)
    truth = torch.rand(band.box, band.box, band.box, generator=generator) * support
    linear, nothing = apply_normal(transform_normal_kernel(kernel), truth), torch.zeros_like(truth)
    solve = MStep(support, positive=False, curvature=Curvature.of(kernel, support), iterations=30)
    whole, found = (solve(Quadratic(linear, k), nothing) for k in (kernel, narrow))
    assert float((found - whole).norm()) < 1e-3 * float(whole.norm())


def test_shells_are_scaled_each_by_its_own_factor() -> None:
    volume = torch.randn(12, 12, 12, generator=named_generator(2, "filter test"))
    factors = torch.tensor([1.0, 0.5, 0.0, 2.0, 1.0, 1.0, 1.0])
    filtered = filter_shells(volume, factors)
    before, after = torch.fft.rfftn(volume), torch.fft.rfftn(filtered)
    assert torch.allclose(after[0, 0, 3], 2 * before[0, 0, 3], atol=1e-3)
    assert torch.allclose(after[1, 0, 0], 0.5 * before[1, 0, 0], atol=1e-3)
    assert abs(after[2, 0, 0]) < 1e-3
    assert abs(after[5, 5, 0]) < 1e-3  # beyond the last shell


def test_shells_that_halves_do_not_share_are_held_down() -> None:
    band = BandModel(32, 5.0, PosePrior(0.0, 0.0), random_rotations(1, named_generator(0, "ridge test"))[0])
    kernel = band.operator.normal_kernel(torch.ones(band.operator.n_slices, band.disc.size))
    support = band.support(0.85)
    fsc = torch.tensor([1.0, 1, 0.9, 0.5, 0.1, -0.2])
    ridge = wiener_ridge(mean_curvature(kernel, support), fsc)
    shells = shells_of_half_spectrum(len(support)).flatten()
    curvature = mean_curvature(kernel, support).flatten()
    mean = torch.bincount(shells, curvature) / torch.bincount(shells)
    expected = (1 - fsc.clamp(0.02, 0.999)) / (2 * fsc.clamp(0.02, 0.999))
    expected[0] = 0  # one coefficient, which says nothing
    torch.testing.assert_close((ridge / mean[:6]).float(), expected, rtol=1e-4, atol=1e-6)


def test_conjugate_gradients_stop_where_the_operator_is_not_positive() -> None:
    curvature = torch.tensor([2.0, 1.0, -1e-3])
    found = conjugate_gradients(lambda v: curvature * v, torch.ones(3), torch.zeros(3), lambda v: v, iterations=12)
    assert bool(found.isfinite().all())
    assert float(found.abs().max()) < 10
