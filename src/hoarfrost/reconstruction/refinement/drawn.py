"""The poses that a pass over particles has drawn so far: all that its sums follow from, small enough for checkpoints.

The grids that statistics are spread onto take hundreds of megabytes for a fine map, the poses 200 bytes an image. Added
again in the same order they make the same grids, to the last bit, in a fraction of the time it took to find them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.parallel.team import Team

# Of a pose: rotation, shift and share, in the precision that statistics use them in.
_NUMBERS = [9, 2, 1]
RowsAndDraws = tuple[Tensor, Draws]


@dataclass(frozen=True)
class ClassDraws:
    """Poses drawn for a batch under one class, of all processes: `poses` (m, 12) float32, of its images `rows` (m,)."""

    rows: Tensor
    poses: Tensor


@final
@dataclass(frozen=True)
class Drawn:
    """The draws of each batch so far, by class; `looked_at` counts the images that were looked at under each class."""

    looked_at: tuple[int, ...]
    batches: tuple[tuple[ClassDraws, ...], ...] = ()

    @classmethod
    def none(cls, classes: int) -> Drawn:
        """Before the first batch."""
        return cls((0,) * classes)

    def plus(
        self, draws: list[RowsAndDraws | None], looked_at: tuple[int, ...], first: int, like: Tensor, team: Team
    ) -> Drawn:
        """With those of one more batch, of which this process has the images from row `first` on.

        `like` is any tensor on the device of the draws.
        """
        of_classes = tuple(_packed(of_class, first, like, team) for of_class in draws)
        counts = tuple(before + now for before, now in zip(self.looked_at, looked_at, strict=True))
        return Drawn(counts, (*self.batches, of_classes))

    def of_batch(self, number: int, first: int, last: int) -> list[RowsAndDraws | None]:
        """What a batch added for its rows from `first` to before `last`, counted from there."""
        found: list[RowsAndDraws | None] = []
        for of_class in self.batches[number]:
            own = (of_class.rows >= first) & (of_class.rows < last)
            rows, image = torch.unique_consecutive(of_class.rows[own], return_inverse=True)
            rotations, shifts_px, share = torch.split(of_class.poses[own], _NUMBERS, dim=1)
            draws = Draws(image, rotations.reshape(-1, 3, 3), shifts_px.contiguous(), share.flatten())
            found.append((rows.to(torch.int64) - first, draws) if len(rows) else None)
        return found


def _packed(of_class: RowsAndDraws | None, first: int, like: Tensor, team: Team) -> ClassDraws:
    rows = torch.empty(0, dtype=torch.int32, device=like.device)
    poses = torch.empty(0, sum(_NUMBERS), device=like.device)
    if of_class is not None:
        of_images, draws = of_class
        rows = (of_images[draws.image] + first).to(torch.int32)
        parts = (draws.rotations.flatten(1), draws.shifts_px, draws.share.unsqueeze(1))
        poses = torch.cat([part.to(torch.float32) for part in parts], dim=1)
    if team.size == 1:
        return ClassDraws(rows, poses)
    # As whole numbers, sums with zero keep every bit.
    return ClassDraws(team.gather_all(rows), team.gather_all(poses.view(torch.int32)).view(torch.float32))
