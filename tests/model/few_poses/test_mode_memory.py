"""Modes come back as they were kept, to float32."""

from __future__ import annotations

import torch

from hoarfrost.maths.rotations import random_rotations
from hoarfrost.model.few_poses.mode_memory import ModeMemory
from hoarfrost.model.few_poses.modes import Modes

GENERATOR = torch.Generator().manual_seed(0)


def some_modes(b: int, m: int) -> Modes:
    root = torch.randn(b, m, 5, 5, generator=GENERATOR)
    return Modes(
        random_rotations(b * m, GENERATOR).view(b, m, 3, 3),
        torch.randn(b, m, 2, generator=GENERATOR, dtype=torch.float64),
        torch.randn(b, m, generator=GENERATOR),
        root @ root.transpose(2, 3),
    )


def test_there_are_none_at_first() -> None:
    modes, none = ModeMemory.empty(9, 4)[torch.tensor([3, 8])], Modes.none(2, 4)
    for name in ("rotations", "shifts_px", "log_mass", "precision"):
        assert torch.equal(getattr(modes, name), getattr(none, name))
        assert getattr(modes, name).dtype == getattr(none, name).dtype


def test_the_first_are_kept_and_others_left_alone() -> None:
    memory, kept = ModeMemory.empty(9, 4), some_modes(2, 6)
    memory[torch.tensor([7, 2])] = kept
    back = memory[torch.tensor([2, 7, 5])]
    torch.testing.assert_close(back.rotations[:2], kept.rotations[[1, 0], :4], atol=1e-7, rtol=0)
    torch.testing.assert_close(back.shifts_px[:2], kept.shifts_px[[1, 0], :4], atol=1e-6, rtol=0)
    assert torch.equal(back.log_mass[:2], kept.log_mass[[1, 0], :4])
    torch.testing.assert_close(back.precision[:2], kept.precision[[1, 0], :4])
    assert torch.equal(back.precision, back.precision.transpose(2, 3))
    assert (back.log_mass[2] == -torch.inf).all()


def test_fewer_modes_than_there_is_room_for_leave_no_old_ones() -> None:
    memory = ModeMemory.empty(3, 4)
    memory[torch.tensor([1])] = some_modes(1, 4)
    memory[torch.tensor([1])] = some_modes(1, 2)
    assert memory[torch.tensor([1])].log_mass.isfinite().tolist() == [[True, True, False, False]]
