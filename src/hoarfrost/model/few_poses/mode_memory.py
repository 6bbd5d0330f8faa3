"""The modes of every particle of a data set, packed into what a later visit needs of them."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor

from hoarfrost.model.few_poses.likelihood import POSE_SIZE
from hoarfrost.model.few_poses.modes import Modes

_KEPT = ("rotations", "shifts_px", "log_mass", "precision")


@final
class ModeMemory:
    """Up to m modes of each of n particles, none at first: 108 bytes a mode.

    Poses are kept in float32, 6e-8 radians and pixels; of the symmetric precision, one half.
    """

    def __init__(self, n: int, m: int, device: torch.device | str = "cpu") -> None:
        upper = torch.triu_indices(POSE_SIZE, POSE_SIZE, device=device)
        self._upper = upper.unbind()
        empty = Modes.none(1, m, device)
        self._rotations = empty.rotations.to(torch.float32).repeat(n, 1, 1, 1)
        self._shifts_px = empty.shifts_px.to(torch.float32).repeat(n, 1, 1)
        self._log_mass = empty.log_mass.repeat(n, 1)
        self._precision = self._half(empty.precision).repeat(n, 1, 1)

    def __getitem__(self, images: Tensor) -> Modes:
        """The modes of the chosen particles (b,)."""
        half = self._precision[images]
        row, column = self._upper
        precision = half.new_empty(*half.shape[:2], POSE_SIZE, POSE_SIZE)
        precision[..., row, column] = half
        precision[..., column, row] = half
        return Modes(
            self._rotations[images].to(torch.float64),
            self._shifts_px[images].to(torch.float64),
            self._log_mass[images],
            precision,
        )

    def __setitem__(self, images: Tensor, modes: Modes) -> None:
        """Keep the first modes of `modes`, as many as there is room for, as those of the particles."""
        used = min(self._log_mass.shape[1], modes.log_mass.shape[1])
        self._log_mass[images] = -math.inf
        self._rotations[images, :used] = modes.rotations[:, :used].to(torch.float32)
        self._shifts_px[images, :used] = modes.shifts_px[:, :used].to(torch.float32)
        self._log_mass[images, :used] = modes.log_mass[:, :used]
        self._precision[images, :used] = self._half(modes.precision[:, :used])

    def state(self) -> dict[str, Any]:
        """The particles that have modes, and these, for `restore`."""
        known = self._log_mass.isfinite().any(dim=1).nonzero().squeeze(1)
        return {"known": known} | {name: getattr(self, f"_{name}")[known] for name in _KEPT}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the modes of another memory for as many particles, where there are none yet."""
        for name in _KEPT:
            getattr(self, f"_{name}")[state["known"]] = state[name]

    def _half(self, precision: Tensor) -> Tensor:
        row, column = self._upper
        return precision[..., row, column]
