"""The last phase of a run without symmetry: are views that its map makes alike told apart by one odd unit?

A particle that is symmetric but for one unit is locked early into any of the views that look alike, and the map
becomes the average of all units. Particles never come to see the other views, as these are no better under such a map.
So a group that the map nearly has is looked for (`near`), and one unit that is odd (`odd_unit`): half of the particles
place it, and the other half, under maps without each one's fold, says whether it is there. Then each particle counts in
each of its views as much as it is likely (`views_map`). That map is kept where it explains particles of other folds
surely better than the one before, by coarse detail: finer poses were found under maps like that one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.model.all_poses.band import box_of
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.refinement.final_passes import FinalPasses
from hoarfrost.reconstruction.refinement.sweep import particle_support
from hoarfrost.reconstruction.schedule import LARGEST_PORTION
from hoarfrost.reconstruction.state.phase import News, Tally
from hoarfrost.reconstruction.symmetry.alike import Alike, Rise
from hoarfrost.reconstruction.symmetry.near import NearGroup, near_group
from hoarfrost.reconstruction.symmetry.odd_unit import OddUnit
from hoarfrost.reconstruction.symmetry.unit_search import Comparison
from hoarfrost.reconstruction.symmetry.views import Views, over_views
from hoarfrost.reconstruction.symmetry.views_map import explained, over_weighted_views
from hoarfrost.reconstruction.trust import LEAST_BEYOND_SPHERE
from hoarfrost.symmetry.axes import in_frame
from hoarfrost.symmetry.point_group import PointGroup

# Coarser maps do not show units, and the search for one uses no finer detail.
LEAST_R_MAX, MOST_R_MAX = 8.0, 14.0
MOST_PARTICLES = 2000
# Nats in all: the best of some dozens of spheres is worth 2 where no unit is odd.
WORTH_CLIMBING = 6.0


@final
@dataclass(frozen=True)
class TellViews:
    """After the final `passes`: first the group `near`, then the odd `unit`, then `rise`, then what came of it."""

    passes: FinalPasses
    near: NearGroup | None = None
    unit: OddUnit | None = None
    rise: Rise | None = None
    result: Alike | None = None
    news: tuple[News, ...] = ()

    @classmethod
    def begin(cls, env: Env, passes: FinalPasses, symmetry: str) -> TellViews:
        """Over at once where the map has a symmetry, is too coarse or round, or is one of several."""
        is_alone = passes.refined.independent and env.settings.classes == 1 and symmetry == "C1"
        is_fine = passes.refined.converged and passes.r_max >= LEAST_R_MAX
        # A round map looks like itself about any axis.
        is_looked_for = is_alone and is_fine and passes.judged(env).beyond_sphere >= LEAST_BEYOND_SPHERE
        return cls(passes, result=None if is_looked_for else Alike())

    def step(self, env: Env, tally: Tally) -> TellViews:
        """Find the group, the unit, whether it is there, or the map; a minute or two at most."""
        if self.near is None:
            return self._with_group(env)
        if self.unit is None:
            return self._with_unit(env, self.near)
        if self.rise is None:
            return self._with_rise(env, self.near, self.unit)
        return self._with_map(env, self.near, self.unit, self.rise)

    def _with_group(self, env: Env) -> TellViews:
        near = near_group(self._coarse(), self._r_max, env.team)
        return dataclasses.replace(self, near=near, result=Alike() if near is None else None, news=())

    def _with_unit(self, env: Env, near: NearGroup) -> TellViews:
        compared = self._comparison(env, near, self._sample(env, 0))
        unit = compared.best_of(env, particle_support(env, compared.volume))
        if unit.gain < WORTH_CLIMBING:
            return self._with_none(env, near)
        return dataclasses.replace(self, unit=unit, news=())

    def _with_rise(self, env: Env, near: NearGroup, unit: OddUnit) -> TellViews:
        placed = self._climbed(env, near, unit, self._sample(env, 0))
        alike, odd = self._by_folds(env, near, placed, self._sample(env, 1))
        rise = Rise.of(over_views(odd) - over_views(alike))
        if not rise.is_sure:
            return self._with_none(env, near)
        return dataclasses.replace(self, unit=placed, rise=rise, news=())

    def _climbed(self, env: Env, near: NearGroup, unit: OddUnit, members: Tensor) -> OddUnit:
        compared = self._comparison(env, near, members)
        return compared.climbed(env, unit, particle_support(env, compared.volume))

    def _with_none(self, env: Env, near: NearGroup) -> TellViews:
        alike = Alike(near.group)
        return dataclasses.replace(self, result=alike, news=(self._told(env, alike.message()),))

    def _with_map(self, env: Env, near: NearGroup, unit: OddUnit, rise: Rise) -> TellViews:
        unit = self._climbed(env, near, unit, self._sample(env, None))
        everyone = torch.arange(env.settings.n_particles)
        share = self._by_folds(env, near, unit, everyone)[1].softmax(dim=1)
        views = Views.of(env, self.passes.poses, near.axes(env.settings.box), PointGroup(near.group))
        passes = over_weighted_views(env, self.passes, views, share)
        better = Rise.of(self._rises(env, passes, views, self._r_max)[self._is_particle])
        told = float((share[self._is_particle].max(dim=1).values > 0.5).double().mean())
        # Where the new map is surely worse the one before knew the views.
        alike = Alike(near.group, rise, told, is_shown=better.is_sure or (-better).is_sure)
        message = alike.message(better if better.is_sure else None)
        kept = self.passes
        if better.is_sure:
            evidence = kept.poses.log_evidence + self._rises(env, passes, views, passes.r_max)
            kept = dataclasses.replace(passes, poses=dataclasses.replace(passes.poses, log_evidence=evidence))
        return dataclasses.replace(self, passes=kept, result=alike, news=(self._told(env, message),))

    def _rises(self, env: Env, passes: FinalPasses, views: Views, r_max: float) -> Tensor:
        return explained(env, passes, r_max, views) - explained(env, self.passes, r_max, views)

    def _told(self, env: Env, message: str) -> News:
        return News(env.final_stage, self.passes.r_max, message=message)

    @property
    def _r_max(self) -> float:
        return min(self.passes.r_max, MOST_R_MAX)

    def _coarse(self, of_fold: tuple[int, int] | None = None) -> Tensor:
        """The map of all particles up to the band limit of the search, or that without a fold of a half."""
        assert self.passes.solved is not None
        whole = self.passes.solved.volumes if of_fold is None else self.passes.maps.without(*of_fold)
        return fourier_resize(whole[0], box_of(self._r_max))

    @property
    def _is_particle(self) -> Tensor:
        return self.passes.poses.junk < 0.5

    def _sample(self, env: Env, half: int | None) -> Tensor:
        """Particles of a half, or of both, that are no junk; not more than it takes."""
        chosen = self._is_particle if half is None else self._is_particle & (env.folds.half == half)
        members = chosen.nonzero().squeeze(1)
        order = torch.randperm(len(members), generator=env.generator("odd unit"))
        return members[order[:MOST_PARTICLES]].sort().values

    def _by_folds(self, env: Env, near: NearGroup, unit: OddUnit, members: Tensor) -> tuple[Tensor, Tensor]:
        """Log-densities of views (m, |G|) without a unit and with it, of particles under maps without their fold."""
        found = torch.zeros(2, env.settings.n_particles, PointGroup(near.group).order, dtype=torch.float64)
        for half, fold, some in env.folds.portions(members, LARGEST_PORTION):
            compared = self._comparison(env, near, some, (half, fold))
            found[:, some] = torch.stack([compared.alike, compared.of_unit(env, unit)])
        return found[0, members], found[1, members]

    def _comparison(
        self, env: Env, near: NearGroup, members: Tensor, of_fold: tuple[int, int] | None = None
    ) -> Comparison:
        coarse, group = self._coarse(of_fold), PointGroup(near.group)
        volume = group(in_frame(coarse, near.axes(len(coarse))))
        views = Views.of(env, self.passes.poses, near.axes(env.settings.box), group, in_frame=True)
        return Comparison.of(env, volume, self._r_max, members, views)
