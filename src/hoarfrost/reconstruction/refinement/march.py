"""The march of refinement: sweeps at ever higher band limits, until the data hold no more detail.

From the start of refinement the particles form two halves with a map each, which never meet above the band limit that
refinement began with (the "gold standard": Scheres & Chen 2012, Nat. Methods 9, 853). So their FSC tells signal from
fitted noise: it sets how much each shell is trusted, and ends the march where new shells agree no more than by chance.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import final

from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.folds import FoldMaps
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.refinement.gold_standard import Agreement, filtered_halves, fsc_of_halves, joined_below
from hoarfrost.reconstruction.refinement.refining import Refining
from hoarfrost.reconstruction.refinement.sweep import Sweep
from hoarfrost.reconstruction.refinement.visit import Visit
from hoarfrost.reconstruction.schedule import (
    LEAST_GROWTH,
    is_last_sweep,
    share_of_sweeps,
)
from hoarfrost.reconstruction.starts.agreement import StartMaps
from hoarfrost.reconstruction.state.phase import LeftOut, News, Tally
from hoarfrost.reconstruction.watch.live import Shown


@dataclass(frozen=True)
class Refined:
    """Where refinement ended: `maps` of each half, without each of its folds, up to `r_max`.

    `independent` tells whether the halves were refined apart; without any refinement all maps are the start.
    `converged` is False where the epochs that the user allows left out work that the plan had. `gain_before` is the
    held-out one of the maps that refinement began with, and `judged` how well its last ones explain those particles;
    `swept` is how well the maps before the last sweep explain the particles of that, without the fold of each.
    `agree_to` is how far the half maps of any class agree, in Fourier pixels, where they do not up to `r_max`.
    """

    maps: FoldMaps
    r_max: float
    independent: bool
    converged: bool
    gain_before: float
    judged: HeldOut | None = None
    swept: HeldOut | None = None
    agree_to: float = math.inf


@final
@dataclass(frozen=True)
class March:
    """Refinement from the maps of the starts, `given`, up to `last_r_max`.

    `found` are the maps at the last band limit that is done; `number` that of the one under way. There, sweeps have
    come to `maps`, which show an `agreement`; `judged` tells how well particles were explained in each, and `sweep` is
    the one under way.
    """

    given: StartMaps
    last_r_max: float
    refining: Refining
    found: Refined
    number: int = 0
    maps: FoldMaps | None = None
    agreement: Agreement | None = None
    judged: tuple[HeldOut, ...] = ()
    sweep: Sweep | None = None
    is_over: bool = False
    news: tuple[News, ...] = ()

    @classmethod
    def begin(cls, env: Env, given: StartMaps, symmetry: str, tally: Tally, last_r_max: float = math.inf) -> March:
        """From the maps of the starts."""
        env.memo.close()  # their models take hundreds of megabytes
        refining = Refining.begin(env, given.maps.log_shares, symmetry, tally.start)
        first = env.refined_from(given.stage)
        found = Refined(_begun_with(env, given), first, False, given.converged, given.gain)
        return cls(given, last_r_max, refining, found)

    def again(self, env: Env) -> March:
        """Once more at the band limit that is done, and on from there: particles have other optics now."""
        number = env.settings.refined_r_max.index(self.found.r_max)
        return dataclasses.replace(
            self, number=number, maps=self.found.maps, agreement=None, judged=(), is_over=False, news=()
        )

    def step(self, env: Env, tally: Tally) -> March:
        """A batch of a sweep; or the M-step after it; or what follows from a band limit that is done."""
        if self.sweep is not None:
            return self._swept(env, self.sweep)
        if self.maps is None:
            return self._begun(env, tally)
        r_max = self._r_max(env)
        edge = 0.0 if self.agreement is None else float(self.agreement.at_edge(r_max).min())
        if is_last_sweep([judged.beyond_sphere for judged in self.judged], r_max, edge):
            return self._at_next(env, self.maps)
        sweep = Sweep.begin(env, self.maps, r_max, self.refining)
        return dataclasses.replace(self, sweep=sweep, news=())

    def _r_max(self, env: Env) -> float:
        return env.settings.refined_r_max[self.number]

    def _r_max_before(self, env: Env) -> float:
        """The band limit before this one, or the last of the starts."""
        return (env.refined_from(self.given.stage), *env.settings.refined_r_max)[self.number]

    def _stage(self, env: Env) -> int:
        return len(env.settings.stages_r_max) + self.number

    def _begun(self, env: Env, tally: Tally) -> March:
        """At the next band limit that is worth it, or at the end. The last is left to the final passes.

        They come to the same map there without its sweeps.
        """
        limits, first = env.settings.refined_r_max, env.refined_from(self.given.stage)
        for number in range(self.number, len(limits)):
            if limits[number] < LEAST_GROWTH * first:
                continue
            is_for_final = number > 0 and number == len(limits) - 1
            if self.found.independent and (limits[number] > self.last_r_max or is_for_final):
                break
            if env.is_out_of_epochs(tally.since_start):
                return dataclasses.replace(self, found=dataclasses.replace(self.found, converged=False))._ended(env)
            refining = self.refining
            if not self.found.independent:
                refining = dataclasses.replace(refining, junk=refining.junk.begun())
            return dataclasses.replace(
                self, number=number, refining=refining, maps=self.found.maps, agreement=None, judged=(), news=()
            )
        return self._ended(env)

    def _swept(self, env: Env, sweep: Sweep) -> March:
        """One batch further; after the last one with new maps."""
        if not sweep.fold_pass.is_over(env):
            after, visit = sweep.step(env)
            return dataclasses.replace(self, sweep=after, news=(self._news(env, after, visit),))
        maps, agreement = sweep.solved(env)
        return dataclasses.replace(
            self,
            refining=sweep.learnt(),
            maps=maps,
            agreement=agreement,
            judged=(*self.judged, sweep.judged(env)),
            sweep=None,
            news=(),
        )

    def _news(self, env: Env, sweep: Sweep, visit: Visit) -> News:
        return News(
            self._stage(env),
            self._r_max(env),
            share_of_sweeps(len(self.judged) + sweep.fraction_done),
            batch_nll=-float(visit.of_all.log_evidence.mean()),
            ess=float(visit.of_all.ess.median()),
            images=len(visit.everyone),
            is_iteration=True,
        )

    def _at_next(self, env: Env, maps: FoldMaps) -> March:
        """Checked and judged at a band limit that is done, and on to the next unless the halves no longer agree."""
        stage, r_max, common = self._stage(env), self._r_max(env), maps.common
        refining, sum_error = self.refining.spot_checked(env, common, r_max, self.refining.searches.share)
        news: tuple[News, ...] = ()
        if refining.effort != self.refining.effort:
            message = f"Sums miss {-sum_error.mean:.1f} nats an image: twice as many poses are followed now"
            news = (News(stage, r_max, message=message),)
        refining, judged = refining.judged(env, common, r_max)
        news = (*news, News(stage, r_max, 1.0, judged=judged, sum_error=sum_error))
        after = dataclasses.replace(
            self,
            refining=refining,
            found=Refined(maps, r_max, True, True, self.given.gain, judged, self.judged[-1]),
            number=self.number + 1,
            maps=None,
            news=news,
        )
        assert self.agreement is not None
        if self.agreement.goes_on(self._r_max_before(env), r_max):
            return after
        message = f"Half maps refined apart do not agree at {env.length_A / r_max:.1f} Å: no more detail"
        told = News(stage, r_max, message=message, left_out=LeftOut("up to the last", stage + 1))
        found = dataclasses.replace(after.found, agree_to=self.agreement.agree_to(r_max))
        return dataclasses.replace(after, found=found, number=len(env.settings.refined_r_max), news=(*news, told))

    def _ended(self, env: Env) -> March:
        news: tuple[News, ...] = ()
        judged = self.found.judged
        if judged is not None and judged.surely_below(self.given.gain):
            message = (
                f"Refined, the map explains held-out particles less well than before ({judged.gain:z.1f} nats an "
                f"image, {self.given.gain:z.1f} before): its detail, or a symmetry that was imposed, may not be there"
            )
            stage = len(env.settings.stages_r_max) + env.settings.refined_r_max.index(self.found.r_max)
            news = (News(stage, self.found.r_max, message=message),)
        return dataclasses.replace(self, is_over=True, news=news)

    def shown(self, env: Env) -> Shown | None:
        """The maps after a sweep, and some particles with their best poses."""
        maps, known = self.maps, self.refining.known
        if maps is None or not self.judged or self.sweep is not None:
            return None
        matches = partial(known.matches, env.training, env.settings.pixel_size_A)
        return Shown(self._r_max(env), lambda: maps.common, known.log_shares, matches)


def _begun_with(env: Env, given: StartMaps) -> FoldMaps:
    """What each half begins with: its own maps, where starts of either half agree, the same ones where not."""
    if given.halves is None:
        return FoldMaps.alike(given.maps.volumes)
    fsc = env.team.same(fsc_of_halves(given.halves))
    return FoldMaps.of_halves(joined_below(filtered_halves(given.halves, fsc), env.settings.stages_r_max[0]))
