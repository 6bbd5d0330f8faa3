"""The story of a run in six phases, each of which is a value: see the table.

starts      random maps, sums over all poses, until two agree           → the maps of a start
symmetry    axes found in the map, imposed on it                        → the same, with a point group
given       or, in place of both: maps from poses, or a map, of a file  → the same
refinement  two halves apart, few poses an image, band limit by limit   → maps of two halves
optics      defocus and aberrations that explain particles better       → the same particles, and more refinement
final       every particle against the common map                       → maps, half maps, poses
views       without symmetry: are views that look alike told apart      → the same, or a map of an odd unit
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.optics.fit_optics import FitOptics, is_due
from hoarfrost.reconstruction.optics.fitted import FittedOptics
from hoarfrost.reconstruction.refinement.final_passes import FinalPasses
from hoarfrost.reconstruction.refinement.march import March
from hoarfrost.reconstruction.starts.agreement import StartsResult
from hoarfrost.reconstruction.starts.given import Given
from hoarfrost.reconstruction.starts.starts import Starts
from hoarfrost.reconstruction.state.phase import News, Tally
from hoarfrost.reconstruction.symmetry.alike import Alike
from hoarfrost.reconstruction.symmetry.impose import ImposeSymmetry
from hoarfrost.reconstruction.symmetry.tell_views import TellViews
from hoarfrost.reconstruction.watch.live import Shown
from hoarfrost.reconstruction.watch.progress import FractionDone


@final
@dataclass(frozen=True)
class Run:
    """All there is to know of a run at a moment: the `phase` that is under way, and what was done before it.

    `symmetry` is the point group that maps keep to and `diameter_A` the particle's, once they are known. `correlation`
    is that of the map with itself about the axes of a group that was asked for. `starts` tells how the starts compared,
    and `judged` how well the latest maps explain particles that they are not made from. `alike` is what was found of
    views that the map makes alike, once they were looked at. `seconds` are those that the run has taken. `news` is what
    the last step has to tell, each with the tally and the fraction done then.
    """

    phase: Starts | Given | ImposeSymmetry | March | FitOptics | FinalPasses | TellViews
    fraction_done: FractionDone
    symmetry: str | None = None
    correlation: float | None = None
    diameter_A: float | None = None
    starts: StartsResult = StartsResult()
    judged: HeldOut | None = None
    alike: Alike | None = None
    optics: FittedOptics | None = None
    fits: tuple[float, ...] = ()
    has_changed: bool = False
    tally: Tally = Tally()
    seconds: float = 0.0
    news: tuple[tuple[News, Tally, float], ...] = ()

    @classmethod
    def begin(cls, env: Env, fraction_done: FractionDone, messages: Sequence[str] = ()) -> Run:
        """Before the first start, or what is in its place, with something to tell the user."""
        run = cls(Starts() if env.settings.initial == "random" else Given(), fraction_done)
        return run.telling(env, [News(0, env.r_max_of(0), message=message) for message in messages])

    @property
    def comparison(self) -> StartsResult:
        """How the starts compare, as far as there are any."""
        return self.phase.comparison if isinstance(self.phase, Starts) else self.starts

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return isinstance(self.phase, FinalPasses) and self.phase.is_over and self.alike is not None

    def step(self, env: Env) -> Run:
        """One step of the phase, or over to the next."""
        env = self.env_of(env)
        phase = self.phase.step(env, self.tally)
        diameter_A = phase.diameter_A if isinstance(phase, Starts | Given) else self.diameter_A
        after = dataclasses.replace(self, phase=phase, diameter_A=diameter_A)
        return after.telling(env, phase.news)._at_next_phase(env)

    def env_of(self, env: Env) -> Env:
        """What steps work with: that of the whole run, with what the run has found of the particles."""
        env = env.narrowed(self.diameter_A)
        if self.optics is None:
            return env
        return env.with_optics(self.optics.ctf, self.optics.aberrations, self.optics.magnification)

    def _at_next_phase(self, env: Env) -> Run:
        phase, tally = self.phase, self.tally
        if isinstance(phase, Starts) and phase.result is not None:
            imposed = ImposeSymmetry.begin(env, phase.result)
            after = dataclasses.replace(self, phase=imposed, starts=phase.comparison)
            return after._at_next_phase(env)
        if isinstance(phase, Given) and phase.result is not None:
            march = March.begin(env, phase.result, env.settings.symmetry, tally)
            symmetry, correlation = env.settings.symmetry, phase.correlation
            return dataclasses.replace(self, phase=march, symmetry=symmetry, correlation=correlation)
        if isinstance(phase, ImposeSymmetry) and phase.result is not None:
            march = March.begin(env, phase.result, phase.symmetry, tally)
            return dataclasses.replace(self, phase=march, symmetry=phase.symmetry, correlation=phase.correlation)
        if isinstance(phase, March | FinalPasses) and is_due(env, phase, self.fits, has_changed=self.has_changed):
            fit = FitOptics.begin(env, phase, self.optics)
            assert fit.fold_pass is not None
            return dataclasses.replace(self, phase=fit, fits=(*self.fits, fit.fold_pass.r_max))
        if isinstance(phase, FitOptics) and phase.is_over:
            optics = phase.fitted or self.optics
            after = dataclasses.replace(self, phase=phase.of, optics=optics, has_changed=phase.is_large)
            return after._at_next_phase(env)
        if isinstance(phase, March) and phase.is_over:
            return dataclasses.replace(self, phase=FinalPasses.begin(env, phase.found, phase.refining))
        if isinstance(phase, FinalPasses) and phase.is_over and self.alike is None:
            told = TellViews.begin(env, phase, self.symmetry or phase.refining.symmetry)
            return dataclasses.replace(self, phase=told)._at_next_phase(env)
        if isinstance(phase, TellViews) and phase.result is not None:
            return dataclasses.replace(self, phase=phase.passes, alike=phase.result)
        return self

    def telling(self, env: Env, news: Sequence[News]) -> Run:
        """With news, and the tally and the fraction done that follow from news."""
        tally, fraction_done, judged = self.tally, self.fraction_done, self.judged
        told = []
        for each in news:
            tally, judged = tally.after(each), each.judged or judged
            if each.is_told:
                fraction_done = fraction_done.at(tally.start, each.stage, each.done)
                told.append((each, tally, fraction_done.largest))
            if each.left_out is not None:
                fraction_done = fraction_done.without(each.left_out, tally.start)
        seconds = time.monotonic() - env.started
        return dataclasses.replace(
            self, tally=tally, fraction_done=fraction_done, judged=judged, seconds=seconds, news=tuple(told)
        )

    def shown(self, env: Env) -> Shown | None:
        """The current maps, where the phase has any to show."""
        return (
            None
            if isinstance(self.phase, Given | FitOptics | FinalPasses | TellViews)
            else self.phase.shown(self.env_of(env))
        )
