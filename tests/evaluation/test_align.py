"""Alignment finds what was done to a volume; angles to half a degree, shifts to a tenth of a voxel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hoarfrost.evaluation.align import Alignment, align, resample
from hoarfrost.evaluation.search import typical_diameter
from hoarfrost.maths.fourier import centred_window, fourier_resize, soft_sphere
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.rotations import random_rotations, rotation_grid
from hoarfrost.simulation.phantom import make_phantom

BOX = 32


def angle_deg(a: Tensor, b: Tensor) -> float:
    return math.degrees(math.acos(min(1.0, (float((a * b).sum()) - 1) / 2)))


def check(found: Alignment, rotation: Tensor, shift: Tensor, mirrored: bool) -> None:
    assert found.mirrored is mirrored
    assert angle_deg(found.rotation, rotation) < 0.5
    assert float((found.shift_voxels - shift).norm()) < 0.1


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_known_motion_is_found(mirrored: bool) -> None:
    rotation = random_rotations(1, torch.Generator().manual_seed(3))[0]
    shift = torch.tensor([1.3, -2.2, 0.6], dtype=torch.float64)
    volume = make_phantom(BOX)
    reference = resample(volume, rotation, shift, mirrored=mirrored, box=BOX)
    found = align(volume, reference)
    check(found, rotation, shift, mirrored)
    assert found.correlation > 0.999
    assert float(fourier_shell_correlation(found.aligned, reference)[:11].min()) > 0.999


def test_a_noisy_map_of_another_box_voxel_size_and_spectrum() -> None:
    # 24 voxels of 6 Å against 32 of 4 Å: the map is longer than the reference, sharper, and buried in noise.
    generator = torch.Generator().manual_seed(5)
    rotation = random_rotations(1, generator)[0]
    shift = torch.tensor([-0.8, 0.5, 1.1], dtype=torch.float64)
    reference = make_phantom(BOX)
    back = -rotation @ shift
    there = resample(reference, rotation.T, back, mirrored=False, box=BOX)
    long = fourier_resize(centred_window(there, 36), 24)
    noisy = long + 0.5 * long.std() * torch.randn(long.shape, generator=generator)
    found = align(noisy, reference, pixel_size_A=6.0, reference_pixel_size_A=4.0)
    assert found.aligned.shape == (BOX, BOX, BOX)
    assert not found.mirrored
    assert angle_deg(found.rotation, rotation) < 3
    assert float((found.shift_voxels - shift).norm()) < 0.3
    fsc = fourier_shell_correlation(found.aligned, reference)
    assert float(fsc[:6].min()) > 0.9


def test_values_survive_a_change_of_voxel_size() -> None:
    volume = fourier_resize(make_phantom(32), 24, r_max=11)
    still = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    finer = resample(volume, *still, mirrored=False, box=32)
    # fourier_resize keeps sums, `resample` the values of voxels.
    torch.testing.assert_close(
        finer, fourier_resize(make_phantom(32), 32, r_max=11) * (32 / 24) ** 3, atol=2e-3, rtol=0
    )


def test_the_convention_in_plain_indices() -> None:
    # aligned(x) = V(−R(x − t)): one bright voxel at y lands where −R(x − t) = y.
    n, y = 17, torch.tensor([3.0, -2.0, 4.0], dtype=torch.float64)
    volume = torch.zeros(n, n, n)
    volume[4 + n // 2, -2 + n // 2, 3 + n // 2] = 1
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    shift = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    moved = resample(volume, quarter, shift, mirrored=True, box=n)
    x = (-quarter.T @ y + shift).long() + n // 2
    assert int(moved.argmax()) == int((x[2] * n + x[1]) * n + x[0])


def test_a_featureless_ball_is_no_trouble() -> None:
    ball_map = soft_sphere(16, 6, 3).float()
    found = align(ball_map, ball_map)
    assert float(found.shift_voxels.norm()) < 0.1
    assert found.correlation > 0.99


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (torch.ones(16, 16, 16), "constant"),
        (torch.full((16, 16, 16), math.nan), "finite"),
        (torch.rand(16, 16, 15), "cubic"),
        (torch.rand(4, 4, 4), "8 voxels"),
    ],
)
def test_volumes_that_cannot_be_aligned_are_refused(volume: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        align(volume, make_phantom(16))
    with pytest.raises(ValueError, match=message):
        align(make_phantom(16), volume)


def test_the_rotation_grid_leaves_no_hole() -> None:
    grid = rotation_grid(4500)
    torch.testing.assert_close(grid @ grid.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(4500, 3, 3))
    wanted = random_rotations(500, torch.Generator().manual_seed(0))
    trace = wanted.flatten(1) @ grid.flatten(1).T
    nearest_deg = torch.rad2deg(torch.acos(((trace.amax(1) - 1) / 2).clamp(-1, 1)))
    assert float(nearest_deg.max()) < 15
    assert float(nearest_deg.mean()) < 9


def test_the_diameter_of_a_ball() -> None:
    assert typical_diameter(soft_sphere(32, 14, 1).float()) == pytest.approx(14, rel=0.1)
