"""Point groups, averages over them, and axes found in maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hoarfrost.errors import UsageError
from hoarfrost.maths.fourier import FourierDisc, fourier_resize, radius_grid
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.quadrature import PosePrior, in_plane_angles, make_orientation_quadrature
from hoarfrost.model.slices.operator import SliceOperator
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.symmetry.axes import Axes, find_axes, in_frame
from hoarfrost.symmetry.field_average import permuted_sum, summed_about_z, summed_anywhere
from hoarfrost.symmetry.point_group import PointGroup

BOX, R_MAX = 28, 11.4
ORDERS = {"C1": 1, "C2": 2, "C7": 7, "D1": 2, "D2": 4, "D7": 14, "T": 12, "O": 24, "I": 60}
ON_GRID = ("C2", "C4", "D1", "D2", "D4", "T", "O")
BETWEEN = ("C3", "C7", "D3", "D7", "I")


def blobs(centres: Tensor) -> Tensor:
    """Normal blobs of 1.6 voxels at centres (m, 3), (x, y, z)."""
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    places = torch.stack([x, y, z], dim=-1)
    each = [torch.exp(-(places - c).square().sum(-1) / (2 * 1.6**2)) for c in centres]
    return torch.stack(each).sum(dim=0).float()


def some_centres() -> Tensor:
    return (torch.rand(5, 3, generator=named_generator(0, "blobs"), dtype=torch.float64) - 0.5) * 12


def limited_noise(seed: int) -> Tensor:
    noise = torch.randn(BOX, BOX, BOX, generator=named_generator(seed, "noise"))
    return fourier_resize(noise, BOX, R_MAX) * (radius_grid(BOX, 3) <= 0.42 * BOX)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_a_group_has_its_order_and_is_closed(name: str, order: int) -> None:
    group = PointGroup(name)
    assert group.order == order
    torch.testing.assert_close(group.rotations[0], torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(torch.linalg.det(group.rotations), torch.ones(order, dtype=torch.float64))
    products = (group.rotations[:, None] @ group.rotations).reshape(-1, 9)
    assert float(torch.cdist(products, group.rotations.reshape(-1, 9)).amin(dim=1).max()) < 1e-6
    # The cosets of the permutations make up the group, each rotation once.
    assert len(group.cosets) * len(group.permutations) == order
    made = (group.cosets[:, None] @ group.permutations).reshape(-1, 9)
    assert float(torch.cdist(group.rotations.reshape(-1, 9), made).amin(dim=1).max()) < 1e-6


@pytest.mark.parametrize(("name", "copies"), [("C4", 2), ("D4", 3), ("T", 4), ("O", 5), ("I", 4)])
def test_permutations_are_summed_along_a_chain_of_subgroups(name: str, copies: int) -> None:
    group = PointGroup(name)
    volume = limited_noise(1)
    at_once, step_by_step = permuted_sum(volume, group.permutations), volume
    for turns in group.permuting_steps:
        step_by_step = permuted_sum(step_by_step, turns)
    assert relative(step_by_step, at_once) < 1e-6
    assert sum(len(turns) - 1 for turns in group.permuting_steps) == copies


@pytest.mark.parametrize("name", ["C3", "D7"])
def test_turns_about_z_go_plane_by_plane_to_the_same(name: str) -> None:
    turns, volume = PointGroup(name).cosets, blobs(some_centres())
    by_planes, in_space = (summed(volume, turns, 0.4 * BOX) for summed in (summed_about_z, summed_anywhere))
    inside = radius_grid(BOX, 3) <= 0.4 * BOX
    assert relative(by_planes * inside, in_space * inside) < 1e-3


@pytest.mark.parametrize("name", ["C3", "D7", "C4", "I"])
def test_of_an_even_field_half_of_the_planes_will_do(name: str) -> None:
    field = blobs(some_centres())
    mirrored = field.flip(0, 1, 2).roll((1, 1, 1), (0, 1, 2))
    even, group = field + mirrored, PointGroup(name)
    by_halves, whole = (group.average(even, 0.4 * BOX, is_even=is_even) for is_even in (True, False))
    # The turns are interpolated, to 1e-3 at worst.
    assert relative(by_halves, whole) < 3e-4


@pytest.mark.parametrize("name", ["", "C", "C0", "D", "D100", "C-1", "7", "O2", "Td", "C1.5", "auto"])
def test_an_unknown_group_is_refused_in_one_line_that_names_the_groups(name: str) -> None:
    with pytest.raises(UsageError, match=r"Cn or Dn with n from 1 to 99, T, O or I") as refusal:
        PointGroup(name)
    assert "\n" not in str(refusal.value)


def test_names_may_be_in_small_letters() -> None:
    assert PointGroup("d7").name == "D7"


def test_without_symmetry_nothing_changes() -> None:
    volume = limited_noise(1)
    assert PointGroup("C1")(volume) is volume
    turns = random_rotations(3, named_generator(0, "turns"))
    assert PointGroup("C1").nearest(turns) is turns


@pytest.mark.parametrize(("name", "error"), [(n, 1e-5) for n in ON_GRID] + [(n, 1e-3) for n in BETWEEN])
def test_the_average_is_that_of_the_turned_maps(name: str, error: float) -> None:
    group = PointGroup(name)
    expected = torch.stack([blobs(some_centres() @ g.T) for g in group.rotations]).mean(dim=0)
    # Beyond the ball that it fills, the average is zero.
    inside = radius_grid(BOX, 3) <= 0.45 * BOX
    assert relative(group(blobs(some_centres())) * inside, expected * inside) < error
    # What is symmetric stays as it is.
    assert relative(group(expected) * inside, expected * inside) < error


@pytest.mark.parametrize(("name", "error"), [(n, 1e-6) for n in ON_GRID] + [(n, 2e-3) for n in BETWEEN])
def test_the_average_is_an_orthogonal_projection(name: str, error: float) -> None:
    group = PointGroup(name)
    one, other = limited_noise(1), limited_noise(2)
    averaged = group(fourier_resize(make_phantom(64, seed=3), BOX, R_MAX))  # no content at the faces
    assert relative(group(averaged), averaged) < max(error, 5e-4)
    difference = float((group(one) * other).sum() - (one * group(other)).sum())
    assert abs(difference) < error * float(one.norm() * other.norm())
    assert float(group(one).norm()) <= float(one.norm())


@pytest.mark.parametrize("name", ["D2", "C7", "I"])
def test_statistics_are_those_of_every_equivalent_pose(name: str) -> None:
    disc, box, group, generator = FourierDisc(32, 5.2), 16, PointGroup(name), named_generator(0, "statistics")
    rotations = make_orientation_quadrature(5.2).base_rotations[: 2 * in_plane_angles(5.2)]
    slices = torch.randn(len(rotations), disc.size, generator=generator, dtype=torch.complex64)
    weights = torch.rand(len(rotations), disc.size, generator=generator)
    linear, kernel = SliceOperator(disc, box, rotations, group=group).adjoint_and_kernel(slices, weights)
    every = [SliceOperator(disc, box, rotations @ g).adjoint_and_kernel(slices, weights) for g in group.rotations]
    inside = radius_grid(box, 3) <= 0.425 * box
    expected = torch.stack([e[0] for e in every]).mean(dim=0)
    assert relative(linear * inside, expected * inside) < 1e-2
    # Of the kernel, what joins two points of the support.
    reached = radius_grid(2 * box, 3) <= 0.8 * box
    expected = torch.stack([e[1] for e in every]).mean(dim=0)
    assert relative(kernel * reached, expected * reached) < 2e-2


def test_gradients_are_symmetric() -> None:
    group = PointGroup("D2")
    band = BandModel(24, 4.0, PosePrior(0.0, 0.0), torch.eye(3), group=group)
    volume = torch.randn(band.box, band.box, band.box, generator=named_generator(2, "volume"))
    gradient = band.operator.adjoint(band.operator.slices(volume))
    inside = radius_grid(band.box, 3) <= 0.4 * band.box
    assert relative(group(gradient) * inside, gradient * inside) < 1e-5


def test_the_nearest_equivalent_turn_is_the_smallest() -> None:
    group = PointGroup("D7")
    turns = random_rotations(50, named_generator(4, "turns")).view(5, 10, 3, 3)
    nearest = group.nearest(turns)
    every = turns.unsqueeze(2) @ group.rotations
    traces = every.diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(nearest.diagonal(dim1=-2, dim2=-1).sum(-1), traces.amax(dim=2))
    assert float((every - nearest.unsqueeze(2)).abs().amax(dim=(3, 4)).amin(dim=2).max()) < 1e-12


@pytest.mark.parametrize("name", ["C2", "D2", pytest.param("C7", marks=pytest.mark.slow)])
def test_axes_are_found_in_a_map_that_was_turned_and_moved(name: str) -> None:
    group, n = PointGroup(name), 24
    symmetric = group(fourier_resize(make_phantom(48, seed=1, n_blobs=6), n, 9.0))
    turn = random_rotations(1, named_generator(3, name))[0]
    hidden = in_frame(symmetric, Axes(turn, torch.tensor([1.3, -0.7, 0.5], dtype=torch.float64), 0.0))
    hidden += 0.3 * hidden.std() * torch.randn(hidden.shape, generator=named_generator(1, "noise"))
    axes = find_axes(hidden, group, 9.0)
    assert axes.correlation > 0.95
    back = in_frame(hidden, axes)
    assert float(torch.corrcoef(torch.stack([back.flatten(), group(back).flatten()]))[0, 1]) > 0.95
    assert float(torch.corrcoef(torch.stack([hidden.flatten(), group(hidden).flatten()]))[0, 1]) < 0.8
