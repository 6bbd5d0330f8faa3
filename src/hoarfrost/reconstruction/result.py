"""What a run made: the maps of its structures, and how far they can be trusted."""

from dataclasses import dataclass
from pathlib import Path

from hoarfrost.evaluation.half_maps import HalfMapFSC
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.settings.settings import Settings
from hoarfrost.reconstruction.starts.agreement import StartsResult

SHARPENED = "map_sharpened.mrc"


@dataclass(frozen=True)
class ClassResult:
    """One of the structures that a run found: its map, and how well its half maps agree.

    `folder` has what belongs to it alone; `share` is the share of the particles that show it.
    """

    folder: Path
    map_path: Path
    halves: HalfMapFSC
    share: float

    @property
    def sharpened_path(self) -> Path:
        """The sharpened map, which there is of a map with detail beyond about 8 Å."""
        return self.folder / SHARPENED


@dataclass(frozen=True)
class RunResult:
    """What a run made.

    `resolution_A` is where the FSC of two half maps falls below 0.143, without mask or in one and corrected for it,
    whichever is coarser, and never finer than the band limit; optimistic unless `independent_halves`, when the halves
    were refined apart. `converged` is False where `epochs` ended the run first. `doubts` are reasons not to trust the
    maps, a sentence each, and `judged` tells how well the latest maps explain particles not in them. `classes` has one
    structure, or as many as were asked for, the one of most particles first; what is said of one map is said of that.
    `optics` tells how those that were fitted differ from the file's, None where none were.
    """

    output: Path
    classes: tuple[ClassResult, ...]
    particles_path: Path
    independent_halves: bool
    converged: bool
    doubts: tuple[str, ...]
    judged: HeldOut | None
    starts: StartsResult
    seconds: float
    settings: Settings
    optics: str | None = None

    @property
    def map_path(self) -> Path:
        """The map."""
        return self.classes[0].map_path

    @property
    def halves(self) -> HalfMapFSC:
        """How well the half maps agree."""
        return self.classes[0].halves

    @property
    def resolution_A(self) -> float:
        """What the half maps claim, in Å."""
        return self.halves.resolution_A

    @property
    def band_limit_A(self) -> float:
        """The finest detail of the images that was used, in Å."""
        return self.halves.band_limit_A
