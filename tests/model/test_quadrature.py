"""The quadratures of orientations and shifts: sizes, weights, exactness, symmetry."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import lebedev_rule
from scipy.special import eval_legendre

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rotations import plane_symmetries, random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.quadrature import (
    LEBEDEV_ORDERS,
    LEBEDEV_SIZES,
    make_orientation_quadrature,
    make_shift_quadrature,
)


def test_the_sizes_are_those_of_scipys_rules_and_all_weights_are_positive() -> None:
    for order, size in zip(LEBEDEV_ORDERS, LEBEDEV_SIZES, strict=True):
        points, weights = lebedev_rule(order)
        assert points.shape == (3, size)
        assert weights.min() > 0


def test_the_published_number_of_orientations_at_16_percent_of_nyquist_of_128_pixels() -> None:
    # Published: 1,454 directions × 65 angles; ours are rounded up to a multiple of four.
    quadrature = make_orientation_quadrature(10.24)
    assert quadrature.n_nodes == 1454 * 68
    assert quadrature.n_base * 8 == quadrature.n_nodes
    assert quadrature.angular_step_deg == pytest.approx(math.degrees(math.atan(1 / 10.24)))


def test_the_published_number_at_10_percent() -> None:
    assert make_orientation_quadrature(6.4).n_nodes == 590 * 44  # published: 590 × 41


@pytest.mark.parametrize("r_max", [1.0, 2.0, 3.3, 6.0])
def test_weights_are_positive_and_sum_to_one(r_max: float) -> None:
    quadrature = make_orientation_quadrature(r_max)
    weights = quadrature.log_weights().exp()
    assert weights.shape == (quadrature.n_nodes,)
    assert float(weights.min()) > 0
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    assert float(8 * quadrature.base_log_weights.exp().sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("r_max", [1.0, 2.0, 3.3])
def test_all_nodes_are_different_rotations(r_max: float) -> None:
    rotations = make_orientation_quadrature(r_max).rotations()
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(len(rotations)).double())
    cosine = (torch.einsum("nij,mij->nm", rotations, rotations) - 1) / 2
    cosine.fill_diagonal_(-1)
    assert math.acos(float(cosine.max())) > 0.3 * math.atan(1 / r_max)


@pytest.mark.parametrize("turned", [False, True])
def test_the_planes_symmetries_only_reorder_the_nodes(turned: bool) -> None:
    quadrature = make_orientation_quadrature(2.0)
    if turned:
        quadrature = quadrature.rotated(random_rotations(1, named_generator(0, "test"))[0])
    rotations, log_weights = quadrature.rotations(), quadrature.log_weights()
    for symmetry in plane_symmetries():
        distance = torch.cdist((symmetry @ rotations).flatten(1), rotations.flatten(1))
        nearest = distance.min(dim=1)
        assert float(nearest.values.max()) < 1e-6
        assert nearest.indices.unique().numel() == len(rotations)
        torch.testing.assert_close(log_weights[nearest.indices], log_weights)


@pytest.mark.parametrize("r_max", [1.0, 3.3, 6.0])
@pytest.mark.parametrize("turned", [False, True])
def test_means_of_polynomials_in_the_rotation_are_exact(r_max: float, turned: bool) -> None:
    quadrature = make_orientation_quadrature(r_max)
    if turned:
        quadrature = quadrature.rotated(random_rotations(1, named_generator(0, "test"))[0])
    rotations, weights = quadrature.rotations(), quadrature.log_weights().exp()

    def mean(values: torch.Tensor) -> torch.Tensor:
        return torch.tensordot(weights, values, dims=1)

    torch.testing.assert_close(mean(rotations), torch.zeros(3, 3).double(), atol=1e-12, rtol=0)
    products = mean(torch.einsum("nij,nkl->nijkl", rotations, rotations))
    unit = torch.eye(3).double()
    expected = torch.einsum("ik,jl->ijkl", unit, unit) / 3
    torch.testing.assert_close(products, expected, atol=1e-12, rtol=0)
    # ⟨R_ai R_bj R_ck⟩ = ε_abc ε_ijk / 6
    triple = mean(torch.einsum("n,n,n->n", rotations[:, 0, 0], rotations[:, 1, 1], rotations[:, 2, 2]))
    assert float(triple) == pytest.approx(1 / 6, abs=1e-12)


@pytest.mark.parametrize("r_max", [2.0, 6.0])
def test_means_of_the_views_are_exact_up_to_the_rules_degree(r_max: float) -> None:
    quadrature = make_orientation_quadrature(r_max)
    size = quadrature.n_nodes // (4 * math.ceil(math.pi / 2 / math.atan(1 / r_max)))
    degree = LEBEDEV_ORDERS[LEBEDEV_SIZES.index(size)]
    view = quadrature.rotations()[:, 2]  # the projection's direction in the map's frame
    axis = torch.tensor([0.36, 0.48, 0.8], dtype=torch.float64)
    for n in range(1, degree + 1):
        values = torch.from_numpy(eval_legendre(n, (view @ axis).numpy()))
        assert abs(float((quadrature.log_weights().exp() * values).sum())) < 1e-10, n


@pytest.mark.parametrize("r_max", [2.0, 6.0])
def test_every_rotation_is_near_a_node(r_max: float) -> None:
    quadrature = make_orientation_quadrature(r_max)
    wanted = random_rotations(50, named_generator(0, "test"))
    cosine = (torch.einsum("nij,mij->nm", wanted, quadrature.rotations()) - 1) / 2
    furthest_deg = math.degrees(math.acos(float(cosine.max(dim=1).values.min())))
    assert furthest_deg < 1.2 * quadrature.angular_step_deg


def test_turning_the_quadrature_keeps_everything_but_the_directions() -> None:
    quadrature = make_orientation_quadrature(2.0)
    turn = random_rotations(1, named_generator(0, "test"))[0]
    turned = quadrature.rotated(turn)
    torch.testing.assert_close(turned.rotations(), quadrature.rotations() @ turn)
    assert torch.equal(turned.log_weights(), quadrature.log_weights())


def test_a_band_beyond_the_largest_rule_is_refused() -> None:
    assert make_orientation_quadrature(21.0).n_base > 0
    with pytest.raises(ValueError, match="needs 6066 directions, more than the 5810"):
        make_orientation_quadrature(21.62)


@pytest.mark.parametrize(("sigma_px", "extent_px"), [(2.0, 6.0), (1.0, 2.5), (5.0, 5.0), (0.3, 8.0)])
def test_shifts_have_normal_weights_inside_the_extent(sigma_px: float, extent_px: float) -> None:
    quadrature = make_shift_quadrature(8.0, 64, sigma_px, extent_px)
    radius = quadrature.shifts_px.norm(dim=-1)
    assert float(radius.max()) <= extent_px + 1e-9
    assert float(quadrature.log_weights.exp().sum()) == pytest.approx(1, abs=1e-12)
    centre = quadrature.log_weights[radius == 0]
    assert centre.shape == (1,)
    torch.testing.assert_close(quadrature.log_weights - centre, -radius.square() / (2 * sigma_px**2))
    # Both signs of both axes alike.
    rows = {tuple(row) for row in quadrature.shifts_px.tolist()}
    assert rows == {(-y + 0.0, x + 0.0) for x, y in rows}


def test_neighbouring_shifts_turn_the_outermost_coefficient_by_two_radians() -> None:
    quadrature = make_shift_quadrature(8.0, 64, 2.0, 6.0)
    spacing = float(quadrature.shifts_px.unique().diff().min())
    assert 2 * math.pi * 8.0 * spacing / 64 == pytest.approx(2)
    assert len(quadrature.shifts_px) == 21


@pytest.mark.parametrize(("sigma_px", "extent_px"), [(0.0, 10.0), (0.0, 0.0), (2.0, 1.0)])
def test_no_spread_leaves_the_one_shift_of_zero(sigma_px: float, extent_px: float) -> None:
    quadrature = make_shift_quadrature(8.0, 64, sigma_px, extent_px)
    assert quadrature.shifts_px.tolist() == [[0, 0]]
    assert quadrature.log_weights.tolist() == [0]


@pytest.mark.parametrize("box", [16, 17])
@pytest.mark.parametrize(("x", "y"), [(2, -3), (1, 0), (0, 1), (-4, 4)])
def test_a_phase_moves_the_particle_by_plus_t(box: int, x: int, y: int) -> None:
    disc = FourierDisc(box, 7.5)
    image = torch.randn(box, box, generator=named_generator(0, "test"), dtype=torch.float64)
    quadrature = make_shift_quadrature(box / math.pi, box, 3.0, 6.0)  # a spacing of one pixel
    node = int((quadrature.shifts_px - torch.tensor([x, y])).norm(dim=-1).argmin())
    torch.testing.assert_close(quadrature.shifts_px[node], torch.tensor([x, y]).double())
    phases = quadrature.phases(disc.coordinates, box)
    assert phases.shape == (len(quadrature.shifts_px), disc.size)
    moved = torch.roll(image, (y, x), (0, 1))
    torch.testing.assert_close(disc.pack(moved), disc.pack(image) * phases[node])
