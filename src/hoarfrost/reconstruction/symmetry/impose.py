"""The second phase: a point group imposed on a map that was found without it.

Random starts with a symmetry of their own are caught in wrong solutions more often than starts without, and so are
maps whose axes were placed while they were still vague. So `auto` sums over all poses and refines in C1 for a while,
finds the axes in the refined map (`symmetry.axes`), moves it there, averages it over the group and refines it again,
from the band limit where refinement began. Where there was no refinement it goes on with the sums over all poses.
Which group it is can be found out as well (`reconstruction.symmetry.search`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import final

from torch import Tensor

from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.particles.sampling import MinibatchSampler
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.folds import FOLDS
from hoarfrost.reconstruction.estimate.junk import Junk
from hoarfrost.reconstruction.refinement.march import March
from hoarfrost.reconstruction.starts.agreement import StartMaps
from hoarfrost.reconstruction.starts.method import Ground
from hoarfrost.reconstruction.starts.online_em import OnlineMethod
from hoarfrost.reconstruction.starts.stage import Stage
from hoarfrost.reconstruction.state.phase import LeftOut, News, Tally
from hoarfrost.reconstruction.symmetry.by_refinement import (
    Refinement,
    SearchByRefinement,
    imposed,
    maps_of,
    with_maps,
)
from hoarfrost.reconstruction.symmetry.search import GroupSearch
from hoarfrost.reconstruction.watch.live import Shown
from hoarfrost.symmetry.point_group import PointGroup

# Axes are found by what is coarser, and tested up to here; to refine in C1 any further takes time for nothing.
LAST_R_MAX = 14.0


@final
@dataclass(frozen=True)
class ImposeSymmetry:
    """From the maps of the starts, `given`, to `result`, which has the point group `symmetry`.

    Between them come a `march` without symmetry, searches for the group where it is to be found (`by_refinement` where
    orientations are hardly known, then `search`), and, where there was no refinement, a `stage` with the symmetry.
    `correlation` is that of the map with itself about the axes of a group that was asked for, the least of several
    maps.
    """

    given: StartMaps
    march: March | None = None
    by_refinement: SearchByRefinement | None = None
    search: GroupSearch | None = None
    stage: Stage | None = None
    symmetry: str = "C1"
    correlation: float | None = None
    result: StartMaps | None = None
    news: tuple[News, ...] = ()

    @classmethod
    def begin(cls, env: Env, given: StartMaps) -> ImposeSymmetry:
        """Over at once where the maps have the symmetry that is asked for."""
        asked = env.settings.symmetry
        if asked != "auto" and PointGroup(asked).order == PointGroup(env.first_symmetry).order:
            return cls(given, symmetry=asked, result=given)
        return cls(given)

    def step(self, env: Env, tally: Tally) -> ImposeSymmetry:
        """A step of what is under way."""
        if self.stage is not None:
            return self._with_stage(env, self.stage, tally)
        if self.march is None:
            march = March.begin(env, self.given, "C1", tally, LAST_R_MAX)
            return dataclasses.replace(self, march=march, news=())
        if not self.march.is_over:
            march = self.march.step(env, tally)
            return dataclasses.replace(self, march=march, news=march.news)
        if env.settings.symmetry != "auto":
            return self._with_axes(env, self.march)
        if self.by_refinement is None and SearchByRefinement.is_needed(self.march):
            before = Refinement.of("C1", self.march)
            by_refinement = SearchByRefinement(self.given, before, LAST_R_MAX)
            return dataclasses.replace(self, by_refinement=by_refinement, news=())
        if self.by_refinement is not None and not self.by_refinement.is_over:
            by_refinement = self.by_refinement.step(env, tally)
            return dataclasses.replace(self, by_refinement=by_refinement, news=by_refinement.news)
        if self.by_refinement is not None and self.by_refinement.found is not None:
            return self._refined_so_far(env, self.by_refinement.found)
        if self.search is None:
            found = self.march.found
            search = GroupSearch(found.maps.common[0], found.r_max, self.march.refining)
            return dataclasses.replace(self, search=search, news=())
        if not self.search.is_over:
            return dataclasses.replace(self, search=self.search.step(env), news=())
        return self._with_group(env, self.march, self.search)

    def _with_axes(self, env: Env, march: March) -> ImposeSymmetry:
        """With the group that was asked for, about the axes that the maps have."""
        group = PointGroup(env.settings.symmetry)
        volumes, correlations = imposed(env, march, group)
        told = " and ".join(f"{correlation:.2f}" for correlation in correlations)
        message = f"Axes of {group.name} found: turned about them, the map correlates by {told}"
        news = News(self.given.stage, env.r_max_of(self.given.stage), message=message)
        asked = dataclasses.replace(self, correlation=min(correlations))
        return asked._gone_on(env, march, group.name, volumes, news)

    def _refined_so_far(self, env: Env, found: Refinement) -> ImposeSymmetry:
        """With the group that refinement told, from the maps that it came to."""
        result = with_maps(env, self.given, maps_of(found.march))
        news = News(self.given.stage, env.r_max_of(self.given.stage), left_out=_again(env))
        ended = dataclasses.replace(self, march=None, by_refinement=None, symmetry=found.group)
        return dataclasses.replace(ended, result=result, news=(news,))

    def _with_group(self, env: Env, march: March, search: GroupSearch) -> ImposeSymmetry:
        """With the group that was found out, C1 and the maps of the starts where there is none."""
        message = "No symmetry: the map does not look like itself about any axis"
        best = search.best
        if search.trials:
            told = ", ".join(trial.summary() for trial in search.trials)
            name = "C1" if best is None else best.group
            message = f"Symmetry: {name} (held-out particles are explained better, in nats, by {told})"
        news = News(env.final_stage, search.r_max, message=message)
        if best is None:
            ended = dataclasses.replace(self, march=None, by_refinement=None, search=None)
            return dataclasses.replace(ended, result=self.given, news=(news,))
        volumes, _ = imposed(env, march, PointGroup(best.group))
        return self._gone_on(env, march, best.group, volumes, news)

    def _gone_on(self, env: Env, march: March, symmetry: str, volumes: Tensor, news: News) -> ImposeSymmetry:
        """From maps that have the symmetry: to be refined, or to go on with the sums over all poses.

        These are the common ones and those of the halves, (3, C, box, box, box).
        """
        after = dataclasses.replace(self, march=None, by_refinement=None, search=None, symmetry=symmetry)
        if march.found.independent:
            result = with_maps(env, self.given, volumes)
            return dataclasses.replace(after, result=result, news=(dataclasses.replace(news, left_out=_again(env)),))
        band = env.band(self.given.stage, symmetry, start=march.refining.start)
        support = env.support(band.box)
        maps = fourier_resize(volumes[0], band.box) * support
        junk = Junk(env.source.mask_power).covering(env.sample(band.disc), band.disc)
        ground = Ground(band, support, env.team)
        minibatches = env.generator("minibatches with symmetry")
        sampler = MinibatchSampler.of(env.training, env.settings.batch_size, minibatches, FOLDS)
        method = OnlineMethod.begin(ground, maps.clamp(min=0), sampler.folds, junk=junk)
        stage = Stage.begin(env, self.given.stage, march.refining.start, symmetry, method, sampler)
        return dataclasses.replace(after, stage=stage, news=(news,))

    def _with_stage(self, env: Env, stage: Stage, tally: Tally) -> ImposeSymmetry:
        if not stage.is_over:
            stage = stage.step(env, tally)
            return dataclasses.replace(self, stage=stage, news=stage.news)
        result = dataclasses.replace(
            self.given,
            maps=stage.maps,
            halves=None,
            gain=self.given.gain if stage.gain is None else stage.gain,
            converged=not env.is_out_of_epochs(tally.since_start),
        )
        return dataclasses.replace(self, stage=None, result=result, news=())

    def shown(self, env: Env) -> Shown | None:
        """The current maps of what is under way."""
        if self.stage is not None:
            return self.stage.shown(env)
        return None if self.march is None else self.march.shown(env)


def _again(env: Env) -> LeftOut:
    """Refinement begins once more."""
    return LeftOut("again", len(env.settings.stages_r_max))
