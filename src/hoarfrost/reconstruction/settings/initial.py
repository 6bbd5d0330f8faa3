"""What a run begins with: random maps, or poses of its particle file, or a map that the user gives."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal

from hoarfrost.errors import UsageError
from hoarfrost.evaluation.evaluate import read_map
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.settings.options import InitialOptions, Search

Kind = Literal["random", "poses", "map"]
"""Random maps, a map that particles make at the poses of their file, or a map of another file."""

# Offsets that are allowed, over the largest of the file.
ROOM_FOR_SHIFTS = 1.1


@dataclass(frozen=True)
class Initial:
    """What a run begins with. `map_path` is that of a given map; `resolution_A` its detail, None where left open."""

    kind: Kind = "random"
    map_path: str | None = None
    search: Search = "everywhere"
    resolution_A: float | None = None

    @classmethod
    def of(cls, stack: ParticleStack, options: InitialOptions) -> Initial:
        """What the options ask for.

        Raises UsageError where the file lacks the poses, DataError for a map, poses or halves that are none.
        """
        poses, _ = stack.poses, stack.halves
        if poses is None and (options.initial_map is None or options.search == "near"):
            raise UsageError(
                f"{stack.table.star.path} has no poses to begin at; give a map with --map, or begin with none by "
                "hoarfrost reconstruct"
            )
        search = options.search or ("everywhere" if poses is None else "near")
        if options.initial_map is None:
            return cls("poses", None, search, options.initial_resolution_A)
        read_map(options.initial_map)
        return cls("map", os.path.abspath(options.initial_map), search, options.initial_resolution_A)

    @property
    def given(self) -> set[str]:
        """The settings that the user has asked for by it."""
        return set() if self.kind == "random" else {"initial", "search"}

    def shifts_A(self, stack: ParticleStack, most_A: float) -> tuple[float, float]:
        """Spread and extent of the offsets that the file's poses have, in Å; the extent is at most `most_A`."""
        if self.kind == "random" or stack.poses is None:
            return 0.0, 0.0
        _, shifts_A = stack.poses
        spread_A = float(shifts_A.square().mean().sqrt())
        return spread_A, min(most_A, math.ceil(ROOM_FOR_SHIFTS * float(shifts_A.norm(dim=1).max())))
