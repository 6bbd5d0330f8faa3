"""What a pass over particles has added to its statistics so far, small enough for checkpoints: the poses drawn.

The grids that statistics are spread onto take hundreds of megabytes for a fine map, the poses 200 bytes an image. Added
again in the same order they make the same grids, to the last bit, in a fraction of the time it took to find them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor

from hoarfrost.model.few_poses.importance import Draws
from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.refinement.visit import Added, Visit
from hoarfrost.reconstruction.state.checkpoints import State

# Of a pose: rotation, shift and share, in the precision that statistics use them in.
_NUMBERS = [9, 2, 1]


def own_places(batches: Sequence[Tensor], team: Team) -> list[tuple[int, int]]:
    """Of each batch of a pass, where the process's share begins and ends among the members of all batches."""
    places, before = [], 0
    for batch in batches:
        first, last = team.bounds(len(batch))
        places.append((before + first, before + last))
        before += len(batch)
    return places


@final
class Drawn:
    """The poses drawn in the first `batches` batches of a pass, for this process's share of the images, by class.

    `looked_at` counts the images, of all processes, that were looked at under each class. `places` are those of the
    process's share, by batch: see `own_places`.
    """

    def __init__(self, classes: int, places: list[tuple[int, int]]) -> None:
        self.batches = 0
        self.looked_at = [0] * classes
        self._bounds = places
        # Of each class, of each batch: the image's place among the members of the pass (m,), and poses (m, 12).
        self._places: list[list[Tensor]] = [[] for _ in range(classes)]
        self._poses: list[list[Tensor]] = [[] for _ in range(classes)]

    def note(self, visit: Visit, added: list[Added | None]) -> None:
        """Take note of what a visit added, that of the next batch."""
        for c, of_class in enumerate(added):
            self.looked_at[c] += visit.looked_at[c]
            device = visit.images.data.device
            places = torch.empty(0, dtype=torch.int32, device=device)
            poses = torch.empty(0, sum(_NUMBERS), device=device)
            if of_class is not None:
                rows, draws = of_class
                places = (rows[draws.image] + self._bounds[self.batches][0]).to(torch.int32)
                parts = (draws.rotations.flatten(1), draws.shifts_px, draws.share.unsqueeze(1))
                poses = torch.cat([part.to(torch.float32) for part in parts], dim=1)
            self._places[c].append(places)
            self._poses[c].append(poses)
        self.batches += 1

    def added(self) -> Iterator[list[Added | None]]:
        """What each batch added."""
        for batch in range(self.batches):
            found: list[Added | None] = []
            for places, poses in zip(self._places, self._poses, strict=True):
                rows, image = torch.unique_consecutive(places[batch], return_inverse=True)
                rotations, shifts_px, share = torch.split(poses[batch], _NUMBERS, dim=1)
                draws = Draws(image, rotations.reshape(-1, 3, 3), shifts_px.contiguous(), share.flatten())
                found.append((rows.to(torch.int64) - self._bounds[batch][0], draws) if len(rows) else None)
            yield found

    def state(self, team: Team) -> State:
        """The poses of all processes, for `restore`."""
        tables = []
        for places, poses in zip(self._places, self._poses, strict=True):
            place, numbers = torch.cat(places), torch.cat(poses)
            if team.size > 1:
                place = team.gather_all(place)
                # As whole numbers, sums with zero keep every bit.
                numbers = team.gather_all(numbers.view(torch.int32)).view(torch.float32)
                order = place.argsort(stable=True)
                place, numbers = place[order], numbers[order]
            tables.append({"places": place, "poses": numbers})
        return {"batches": self.batches, "looked_at": self.looked_at, "of_classes": tables}

    def restore(self, state: State) -> None:
        """Take over the process's share of what had been drawn for the same members."""
        self.batches, self.looked_at = state["batches"], list(state["looked_at"])
        for c, table in enumerate(state["of_classes"]):
            bounds = torch.tensor(self._bounds[: self.batches], dtype=torch.int32, device=table["places"].device)
            for first, last in torch.searchsorted(table["places"], bounds).tolist():
                self._places[c].append(table["places"][first:last])
                self._poses[c].append(table["poses"][first:last])
