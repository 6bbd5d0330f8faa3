"""Which symmetry a hollow or round particle has, where its map does not tell: each group is refined, and judged.

Of a shell without symmetry imposed, orientations stay unknown: its map is round, looks like itself about any axis, and
its average over the right group explains particles no better than that over a wrong one. Refined under the right
group, the map comes to detail that tells orientations; under a wrong one it stays round. Only round groups are tried:
I, O and T.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.model.all_poses.band import box_of
from hoarfrost.model.quadratic import Mixture
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.refinement.march import March
from hoarfrost.reconstruction.starts.agreement import StartMaps
from hoarfrost.reconstruction.state.phase import News, Tally
from hoarfrost.reconstruction.symmetry.search import LEAST_STANDARD_ERRORS, impose
from hoarfrost.reconstruction.trust import LEAST_BEYOND_SPHERE
from hoarfrost.symmetry.point_group import PointGroup

ROUND_GROUPS = ("I", "O", "T")


@dataclass(frozen=True)
class Refinement:
    """A refined group: its `march`, and how well particles are explained by maps that they are not in."""

    group: str
    march: March
    judged: HeldOut

    @classmethod
    def of(cls, group: str, march: March) -> Refinement:
        """What a march that is over came to. Raises ValueError if nothing was refined."""
        if march.found.swept is None:
            raise ValueError("without a sweep nothing is known of the particles")
        return cls(group, march, march.found.swept)

    def surely_above(self, other: Refinement) -> bool:
        """Whether particles tell more of their orientations than under another group."""
        a, b = self.judged, other.judged
        error = torch.tensor([a.beyond_sphere_standard_error, b.beyond_sphere_standard_error]).norm()
        return a.beyond_sphere - b.beyond_sphere > LEAST_STANDARD_ERRORS * float(error)

    def summary(self) -> str:
        """Like "O 0.51 ± 0.04"."""
        return f"{self.group} {self.judged.beyond_sphere:.2f} ± {self.judged.beyond_sphere_standard_error:.2f}"


@final
@dataclass(frozen=True)
class SearchByRefinement:
    """Groups refined up to `last_r_max` from the maps of a march without symmetry, `before`, that began with `given`.

    `outcomes` are those that are done, of which only the best keeps its maps; `march` is the one under way.
    """

    given: StartMaps
    before: Refinement
    last_r_max: float
    outcomes: tuple[str, ...] = ()
    best: Refinement | None = None
    march: March | None = None
    is_over: bool = False
    news: tuple[News, ...] = ()

    @staticmethod
    def is_needed(march: March) -> bool:
        """Whether a march without symmetry has refined a map under which orientations are hardly known."""
        swept = march.found.swept
        return swept is not None and swept.beyond_sphere < LEAST_BEYOND_SPHERE

    def step(self, env: Env, tally: Tally) -> SearchByRefinement:
        """A step of the march under a group; or on to the next group."""
        group = ROUND_GROUPS[len(self.outcomes)] if len(self.outcomes) < len(ROUND_GROUPS) else None
        if group is None:
            return dataclasses.replace(self, is_over=True, news=(self._told(env),))
        if self.march is None:
            volumes, _ = imposed(env, self.before.march, PointGroup(group))
            given = with_maps(env, self.given, volumes)
            march = March.begin(env, given, group, tally, self.last_r_max)
            return dataclasses.replace(self, march=march, news=())
        march = self.march.step(env, tally)
        if not march.is_over:
            return dataclasses.replace(self, march=march, news=march.news)
        tried, best = Refinement.of(group, march), self.best
        if best is None or tried.judged.beyond_sphere > best.judged.beyond_sphere:
            best = tried
        outcomes = (*self.outcomes, tried.summary())
        return dataclasses.replace(self, outcomes=outcomes, best=best, march=None, news=march.news)

    @property
    def found(self) -> Refinement | None:
        """The group under which particles tell most of their orientations, None if none is better than no symmetry."""
        return self.best if self.best is not None and self.best.surely_above(self.before) else None

    def _told(self, env: Env) -> News:
        name = "none of them" if self.found is None else self.found.group
        told = ", ".join((self.before.summary(), *self.outcomes))
        message = (
            "Orientations are hardly known without a symmetry, so round ones were refined: "
            f"{name} (particles are explained better than by the map's spherical average, in nats, by {told})"
        )
        return News(env.final_stage, self.before.march.found.r_max, message=message)


def imposed(env: Env, march: March, group: PointGroup) -> tuple[Tensor, list[float]]:
    """The common maps that a march found and those of its halves with a group, (3, C, box, box, box).

    Halves go where the common map's axes are. Also the correlation of that of each class with itself about them.
    """
    every = maps_of(march)
    found = [impose(of_class, group, march.found.r_max, env.team) for of_class in every.unbind(1)]
    return torch.stack([volumes for volumes, _ in found], dim=1), [correlation for _, correlation in found]


def maps_of(march: March) -> Tensor:
    """The common maps that a march found and those of its halves, (3, C, box, box, box)."""
    found = march.found.maps
    return torch.stack([found.common, *(found.of_half(half) for half in range(2))])


def with_maps(env: Env, given: StartMaps, volumes: Tensor) -> StartMaps:
    """Maps for refinement to begin with anew, in place of those of the starts: common ones and those of halves."""
    support = env.support(box_of(env.settings.stages_r_max[given.stage]))
    maps, *halves = fourier_resize(volumes, len(support)) * support
    return dataclasses.replace(given, maps=Mixture(maps, given.maps.log_shares), halves=torch.stack(halves))
