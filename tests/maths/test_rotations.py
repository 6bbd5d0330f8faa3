"""Rotations, RELION's angles and the symmetries of the image plane."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hoarfrost.maths.rotations import (
    plane_symmetries,
    random_rotations,
    relion_deg_from_rotations,
    rotations_about_z,
    rotations_from_quaternions,
    rotations_from_relion_deg,
    rotations_from_vectors,
    separate_maxima,
)
from hoarfrost.maths.seeds import named_generator


def relion_matrix(rot_deg: float, tilt_deg: float, psi_deg: float) -> np.ndarray:
    """Euler_angles2matrix of RELION, written from its documentation: A = Rz(ψ) Ry(θ) Rz(φ), passive."""

    def about_z(angle: float) -> np.ndarray:
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])

    def about_y(angle: float) -> np.ndarray:
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])

    result: np.ndarray = about_z(psi_deg) @ about_y(tilt_deg) @ about_z(rot_deg)
    return result


ANGLES_DEG = np.array([[0.0, 0, 0], [10, 20, 30], [-170, 95, 120], [45, 180, 0], [33, 0, 44], [12, 180, -70]])


def test_relions_angles_are_relions_matrices() -> None:
    expected = np.stack([relion_matrix(*row) for row in ANGLES_DEG])
    np.testing.assert_allclose(rotations_from_relion_deg(ANGLES_DEG), expected, atol=1e-12)


def test_angles_and_matrices_convert_back_and_forth_at_the_poles_too() -> None:
    rotations = rotations_from_relion_deg(ANGLES_DEG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        angles_deg = relion_deg_from_rotations(rotations)
    np.testing.assert_allclose(rotations_from_relion_deg(angles_deg), rotations, atol=1e-7)
    np.testing.assert_allclose(angles_deg[1:3], ANGLES_DEG[1:3], atol=1e-9)


def test_angles_of_random_rotations_convert_back() -> None:
    rotations = random_rotations(500, named_generator(0, "test")).numpy()
    angles_deg = relion_deg_from_rotations(rotations)
    assert angles_deg.shape == (500, 3)
    assert angles_deg[:, 1].min() >= 0
    np.testing.assert_allclose(rotations_from_relion_deg(angles_deg), rotations, atol=1e-12)


def test_random_rotations_are_rotations() -> None:
    rotations = random_rotations(100, named_generator(0, "test"))
    torch.testing.assert_close(rotations @ rotations.transpose(1, 2), torch.eye(3).double().expand(100, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(100).double())
    assert random_rotations(2, named_generator(0, "test"), torch.float32).dtype == torch.float32


def test_random_rotations_are_uniform() -> None:
    n = 40_000
    rotations = random_rotations(n, named_generator(1, "test"))
    error = 5 / math.sqrt(n)
    assert float(rotations.mean(0).abs().max()) < error
    assert float((rotations.square().mean(0) - 1 / 3).abs().max()) < error
    assert float((rotations.pow(4).mean(0) - 1 / 5).abs().max()) < error
    # Haar measure has no preferred frame: the mean character of every irreducible representation is zero.
    trace = rotations.diagonal(dim1=1, dim2=2).sum(-1)
    assert abs(float(trace.mean())) < error * 2
    assert abs(float((trace.square() - trace - 1).mean())) < error * 3


def test_random_rotations_follow_from_the_generator() -> None:
    same = [random_rotations(3, named_generator(7, "test")) for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], random_rotations(3, named_generator(8, "test")))
    assert not torch.equal(same[0], random_rotations(3, named_generator(7, "another test")))


def test_rotation_vectors_are_scipys() -> None:
    vectors = torch.tensor([[0.0, 0, 0], [1e-9, 0, 0], [0.3, -0.2, 1.1], [0, 0, math.pi], [3, -4, 5]]).double()
    expected = Rotation.from_rotvec(vectors.numpy()).as_matrix()
    np.testing.assert_allclose(rotations_from_vectors(vectors).numpy(), expected, atol=1e-12)


def test_quaternions_are_scipys_and_need_not_be_normalised() -> None:
    quaternions = torch.tensor([[1.0, 0, 0, 0], [2, 0, 0, 2], [0.1, -0.5, 3, 0.2]]).double()
    expected = Rotation.from_quat(quaternions[:, [1, 2, 3, 0]].numpy()).as_matrix()
    np.testing.assert_allclose(rotations_from_quaternions(quaternions).numpy(), expected, atol=1e-12)


def test_a_turn_about_z_takes_x_towards_y() -> None:
    turned = rotations_about_z(torch.tensor([math.pi / 2]))[0] @ torch.tensor([1.0, 0, 0]).double()
    torch.testing.assert_close(turned, torch.tensor([0.0, 1, 0]).double(), atol=1e-6, rtol=0)


def test_the_symmetries_of_the_plane_are_a_group_of_eight_rotations() -> None:
    group = plane_symmetries()
    members = {tuple(g.round().flatten().int().tolist()) for g in group}
    assert len(members) == 8
    torch.testing.assert_close(torch.linalg.det(group), torch.ones(8).double())
    for a in group:
        for b in group:
            assert tuple((a @ b).round().flatten().int().tolist()) in members
    # They keep the plane, and in it the lattice.
    assert bool((group[:, :2, 2] == 0).all())
    assert bool((group == group.round()).all())


def test_half_a_turn_lies_two_places_further_on() -> None:
    group = plane_symmetries()
    half_turn = torch.diag(torch.tensor([-1.0, -1, 1])).double()
    for n in (0, 1, 4, 5):
        assert torch.equal(half_turn @ group[n], group[n + 2])
    assert torch.equal(group[2], half_turn)


def test_maxima_are_the_highest_that_lie_apart() -> None:
    about_z = rotations_about_z(torch.deg2rad(torch.tensor([0.0, 10, 20, 40])))
    scores = torch.tensor([1.0, 3, 2, 0])
    assert separate_maxima(scores, about_z, 3) == [1, 3]
    assert separate_maxima(scores, about_z, 1) == [1]
    assert separate_maxima(scores, about_z, 4, apart_deg=5) == [1, 2, 0, 3]
