"""The modes of every particle of a data set, packed into what a later visit needs of them."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hoarfrost.model.few_poses.draws import POSE_SIZE
from hoarfrost.model.few_poses.modes import Modes


@final
@dataclass(frozen=True)
class ModeMemory:
    """Up to m modes of each of n particles: 108 bytes a mode.

    `rotations` (n, m, 3, 3), `shifts_px` (n, m, 2) and `log_mass` (n, m) are as in `Modes`, but in float32, which is
    6e-8 radians and pixels; `precision` (n, m, 15) is the upper half of it.
    """

    rotations: Tensor
    shifts_px: Tensor
    log_mass: Tensor
    precision: Tensor

    @classmethod
    def empty(cls, n: int, m: int, device: torch.device | str = "cpu") -> "ModeMemory":
        """Room for m modes of n particles, of which none is known."""
        none = Modes.none(1, m, device)
        return cls(
            none.rotations.to(torch.float32).repeat(n, 1, 1, 1),
            none.shifts_px.to(torch.float32).repeat(n, 1, 1),
            none.log_mass.repeat(n, 1),
            _half(none.precision).repeat(n, 1, 1),
        )

    def __getitem__(self, images: Tensor) -> Modes:
        """The modes of the chosen particles (b,)."""
        half = self.precision[images]
        row, column = _upper(half.device)
        precision = half.new_empty(*half.shape[:2], POSE_SIZE, POSE_SIZE)
        precision[..., row, column] = half
        precision[..., column, row] = half
        return Modes(
            self.rotations[images].to(torch.float64),
            self.shifts_px[images].to(torch.float64),
            self.log_mass[images],
            precision,
        )

    def __setitem__(self, images: Tensor, modes: Modes) -> None:
        """Keep the first modes of `modes`, as many as there is room for, as those of the particles."""
        used = min(self.log_mass.shape[1], modes.log_mass.shape[1])
        self.log_mass[images] = -math.inf
        self.rotations[images, :used] = modes.rotations[:, :used].to(torch.float32)
        self.shifts_px[images, :used] = modes.shifts_px[:, :used].to(torch.float32)
        self.log_mass[images, :used] = modes.log_mass[:, :used]
        self.precision[images, :used] = _half(modes.precision[:, :used])


def _upper(device: torch.device) -> tuple[Tensor, ...]:
    return torch.triu_indices(POSE_SIZE, POSE_SIZE, device=device).unbind()


def _half(precision: Tensor) -> Tensor:
    row, column = _upper(precision.device)
    return precision[..., row, column]
