"""Modes of the posterior: found on a quadrature, merged, dropped, kept."""

from __future__ import annotations

import math

import torch

from hoarfrost.maths.rotations import random_rotations, rotations_from_vectors
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.few_poses.likelihood import Peaks
from hoarfrost.model.few_poses.modes import Modes, modes_of_quadrature, pose_differences
from hoarfrost.model.quadrature import LikelyPoses, make_orientation_quadrature, make_shift_quadrature
from hoarfrost.symmetry.point_group import PointGroup


def some_modes(log_mass: torch.Tensor) -> Modes:
    b, m = log_mass.shape
    modes = Modes.none(b, m)
    rotations = random_rotations(b * m, named_generator(0, "modes")).view(b, m, 3, 3)
    precision = torch.eye(5).expand(b, m, 5, 5) * 1e4
    return Modes(rotations, modes.shifts_px, log_mass, precision)


def test_differences_are_the_steps_that_were_made() -> None:
    generator = named_generator(1, "modes")
    rotations = random_rotations(4, generator).view(2, 2, 3, 3)
    shifts_px = torch.randn(2, 2, 2, generator=generator, dtype=torch.float64)
    step = torch.randn(2, 2, 5, generator=generator, dtype=torch.float64) * 0.3
    turned = rotations @ rotations_from_vectors(step[..., :3].reshape(-1, 3)).view(2, 2, 3, 3)
    apart = pose_differences(rotations, shifts_px, turned, shifts_px + step[..., 3:])
    own = apart.diagonal(dim1=1, dim2=2).permute(0, 2, 1)
    torch.testing.assert_close(own, step.float(), rtol=1e-4, atol=1e-5)
    # Half a turn is far away, not near.
    half = rotations @ rotations_from_vectors(torch.tensor([[math.pi, 0.0, 0.0]], dtype=torch.float64))
    apart = pose_differences(rotations, shifts_px, half, shifts_px)
    assert float(apart[..., :3].norm(dim=-1).diagonal(dim1=1, dim2=2).min()) > 3


def test_tidying_sorts_drops_and_merges() -> None:
    modes = some_modes(torch.tensor([[0.0, 2.0, -20.0, 1.0]]))
    # The last is the second, hardly moved: one mode.
    modes.rotations[0, 3] = modes.rotations[0, 1] @ rotations_from_vectors(torch.full((1, 3), 1e-3).double())[0]
    tidy = modes.tidied(1e-3)
    assert tidy.log_mass.tolist() == [[2.0, 0.0]]
    torch.testing.assert_close(tidy.rotations[0], modes.rotations[0, [1, 0]])


def test_an_image_without_modes_stays_without() -> None:
    modes = some_modes(torch.tensor([[0.0, -math.inf], [-math.inf, -math.inf]]))
    tidy = modes.tidied(1e-3)
    assert tidy.log_mass.tolist() == [[0.0], [-math.inf]]
    assert modes.share().tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_what_is_kept_is_what_there_is_room_for() -> None:
    memory = Modes.none(5, 2)
    wide = some_modes(torch.tensor([[3.0, 2.0, 1.0]]))
    memory[torch.tensor([4])] = wide
    assert memory.log_mass[4].tolist() == [3.0, 2.0]
    memory[torch.tensor([4])] = some_modes(torch.tensor([[7.0]]))
    assert memory.log_mass[4].tolist() == [7.0, -math.inf]
    assert not memory.log_mass[:4].isfinite().any()


def test_peaks_replace_the_modes_they_came_from() -> None:
    modes = some_modes(torch.zeros(1, 3))
    rotations = random_rotations(1, named_generator(7, "peak"))
    peaks = Peaks(rotations, torch.ones(1, 2).double(), torch.tensor([5.0]), torch.eye(5)[None])
    moved = modes.with_peaks(torch.tensor([0]), torch.tensor([1]), peaks)
    assert moved.log_mass.isfinite().tolist() == [[False, True, False]]
    assert float(moved.log_mass[0, 1]) - 5 - 2.5 * math.log(2 * math.pi) < 1e-5
    assert torch.equal(moved.rotations[0, 1], rotations[0])
    assert modes.log_mass.tolist() == [[0.0, 0.0, 0.0]]


def test_neighbouring_nodes_are_one_mode_and_distant_ones_two() -> None:
    orientations = make_orientation_quadrature(3.0)
    shifts = make_shift_quadrature(3.0, 32, 2.0, 5.0)
    rotations = orientations.rotations()
    trace = (rotations[0] * rotations).sum(dim=(1, 2))
    order = trace.argsort(descending=True)
    near, far = int(order[1]), int(order[-1])
    likely = LikelyPoses(
        torch.tensor([0, 0, 1, 0]),
        torch.tensor([near, 0, 5, far]),
        torch.tensor([0, 1, 2, 3]),
        torch.tensor([0.2, 0.5, 1.0, 0.3]),
    )
    modes = modes_of_quadrature(likely, 2, orientations, shifts, most=4)
    assert modes.log_mass.isfinite().sum(dim=1).tolist() == [2, 1]
    torch.testing.assert_close(modes.log_mass[0, :2].exp(), torch.tensor([0.7, 0.3]))
    assert torch.equal(modes.rotations[0, 0], rotations[0])
    assert torch.equal(modes.rotations[0, 1], rotations[far])
    assert torch.equal(modes.shifts_px[0, 0], shifts.shifts_px[1])


def test_poses_that_show_a_symmetric_map_alike_are_one_mode() -> None:
    group = PointGroup("D7")
    modes = some_modes(torch.tensor([[0.0, 2.0, 1.0]]))
    modes.rotations[0, 2] = modes.rotations[0, 1] @ group.rotations[9]
    assert modes.tidied(1e-3, group).log_mass.tolist() == [[2.0, 0.0]]
    assert modes.tidied(1e-3).log_mass.tolist() == [[2.0, 1.0, 0.0]]
