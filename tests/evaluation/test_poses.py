from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hoarfrost.evaluation.align import resample
from hoarfrost.evaluation.poses import pose_errors
from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rotations import random_rotations, rotations_from_vectors
from hoarfrost.model.slices.operator import SliceOperator
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.symmetry.point_group import PointGroup

MIRROR = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))


def posed_in_another_frame(
    n: int, generator: torch.Generator, *, mirrored: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """True poses (R, t), the same poses in another frame (R, t), and that frame's G and d."""
    true, true_A = (
        random_rotations(n, generator),
        8 * torch.randn(n, 2, generator=generator, dtype=torch.float64),
    )
    frame = random_rotations(1, generator)[0]
    origin_A = 10 * torch.randn(3, generator=generator, dtype=torch.float64)
    rotations = true @ frame.T
    shifts_A = true_A + torch.einsum("nij,j->ni", true[:, :2], origin_A)
    return (MIRROR @ rotations if mirrored else rotations), shifts_A, true, true_A, frame, origin_A


@pytest.mark.parametrize("mirrored", [False, True])
def test_poses_in_another_frame_give_the_same_images(mirrored: bool) -> None:
    # The derivation in the module's docstring, as images: V_est with R_est, t_est against V_true with R_true, t_true.
    generator = torch.Generator().manual_seed(0)
    n = 24
    rotations, shifts, true, true_shifts, frame, origin = posed_in_another_frame(5, generator, mirrored=mirrored)
    estimated = make_phantom(n, seed=1)
    scale = 0.1  # keeps the particle in the box
    truth = resample(estimated, frame, scale * origin, mirrored=mirrored, box=n)
    disc = FourierDisc(n, 8)

    def images(volume: Tensor, rotation: Tensor, shift: Tensor) -> Tensor:
        phase = torch.polar(torch.ones(()), (-2 * torch.pi / n * (shift @ disc.coordinates.double().T)).float())
        return SliceOperator(disc, n, rotation).slices(volume) * phase

    expected = images(truth, true, scale * true_shifts)
    got = images(estimated, rotations, scale * shifts)
    assert float((got - expected).norm() / expected.norm()) < 2e-3


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("wrong", [0.0, 0.7])
def test_the_frame_is_found_though_most_poses_are_wrong(mirrored: bool, wrong: float) -> None:
    generator = torch.Generator().manual_seed(1)
    n = 1500
    rotations, shifts_A, true, true_A, frame, origin_A = posed_in_another_frame(n, generator, mirrored=mirrored)
    noise = rotations_from_vectors(0.04 * torch.randn(n, 3, generator=generator, dtype=torch.float64))
    rotations = noise @ rotations
    bad = torch.rand(n, generator=generator) < wrong
    rotations[bad] = random_rotations(int(bad.sum()), generator)
    shifts_A[bad] = 15 * torch.randn(int(bad.sum()), 2, generator=generator, dtype=torch.float64)
    errors = pose_errors(rotations, shifts_A, true, true_A)
    assert errors.mirrored is mirrored
    assert float((errors.rotation - frame).norm()) < 0.03
    assert float((errors.shift_A - origin_A).norm()) < 0.3
    good_deg = 0.04 * 1.538 * 180 / torch.pi  # median length of a 3D normal deviate is 1.538 σ
    assert float(errors.angles_deg[~bad].median()) == pytest.approx(good_deg, rel=0.1)
    assert float(errors.shifts_A[~bad].median()) < 0.3
    assert (errors.view_angles_deg <= errors.angles_deg + 1e-4).all()
    assert errors.fraction_within(20) == pytest.approx(1 - wrong, abs=0.05)
    if not wrong:
        assert errors.median_angle_deg == pytest.approx(good_deg, rel=0.1)
        assert errors.median_shift_A < 0.3


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("name", ["C3", "D7", "I"])
def test_poses_that_show_a_symmetric_map_alike_are_one(name: str, mirrored: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    n, group = 600, PointGroup(name)
    rotations, shifts_A, true, true_A, _, origin_A = posed_in_another_frame(n, generator, mirrored=mirrored)
    noise = rotations_from_vectors(0.01 * torch.randn(n, 3, generator=generator, dtype=torch.float64))
    any_of_group = group.rotations[torch.randint(group.order, (n,), generator=generator)]
    # Symmetry axes are those of the map that the poses belong to: R g, not g R.
    errors = pose_errors(noise @ rotations @ any_of_group, shifts_A, true, true_A, group)
    assert errors.mirrored is mirrored
    assert float(errors.angles_deg.max()) < 3
    assert float((errors.view_angles_deg - errors.angles_deg).max()) < 1e-4
    assert float(errors.shifts_A.max()) < 0.1
    assert float((errors.shift_A - origin_A).norm()) < 0.1
    alone = pose_errors(noise @ rotations @ any_of_group, shifts_A, true, true_A)
    assert alone.fraction_within(10) < 1 / group.order + 0.05


def test_equivalent_poses_do_not_hide_wrong_ones() -> None:
    generator = torch.Generator().manual_seed(5)
    a, b = random_rotations(1000, generator), random_rotations(1000, generator)
    zero = torch.zeros(1000, 2, dtype=torch.float64)
    errors = pose_errors(a, zero, b, zero, PointGroup("D7"))
    assert errors.median_angle_deg == pytest.approx(62, abs=3)
    assert errors.fraction_within(10) < 0.05


def test_random_poses_are_not_made_to_look_good() -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = random_rotations(1000, generator), random_rotations(1000, generator)
    zero = torch.zeros(1000, 2, dtype=torch.float64)
    errors = pose_errors(a, zero, b, zero)
    assert errors.median_angle_deg > 100
    assert errors.fraction_within(10) < 0.02


def test_one_particle_and_one_view_are_enough() -> None:
    one, zero = random_rotations(1, torch.Generator().manual_seed(3)), torch.zeros(1, 2, dtype=torch.float64)
    assert pose_errors(one, zero, one, zero).median_angle_deg < 1e-4
    many, zeros = one.expand(10, 3, 3), zero.expand(10, 2)
    assert pose_errors(many, zeros + 3, many, zeros).median_shift_A < 1e-6  # an origin that moves all alike


def test_other_shapes_are_refused() -> None:
    rotations, shifts = torch.eye(3).expand(4, 3, 3), torch.zeros(4, 2)
    with pytest.raises(ValueError, match="poses must be"):
        pose_errors(rotations, shifts, rotations[:3], shifts[:3])
    with pytest.raises(ValueError, match="poses must be"):
        pose_errors(rotations[:0], shifts[:0], rotations[:0], shifts[:0])
