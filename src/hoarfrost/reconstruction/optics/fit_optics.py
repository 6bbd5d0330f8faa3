"""A pass over particles that finds the optics they were recorded with, on the way of refinement or of final passes.

Each particle is seen against the map of its half without its fold, as in a sweep, and counts by the probability that it
is no junk. A pass begins with the particles of some micrographs, and ends with these where they promise no gain.
What is found is kept only where particles, or frequencies, that it was not fitted to are better explained.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.model.ctf import electron_wavelength_A
from hoarfrost.model.few_poses.stretch import StretchQuadratics, stretch_quadratics
from hoarfrost.model.few_poses.transfer import TransferEvidence, transfer_evidence
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.folds import FoldMaps
from hoarfrost.reconstruction.optics.decide import Evidence, decided
from hoarfrost.reconstruction.optics.defocus import changes_A, log_likelihood
from hoarfrost.reconstruction.optics.even import EvenQuadratics, even_basis
from hoarfrost.reconstruction.optics.fitted import FittedOptics
from hoarfrost.reconstruction.optics.odd import OddSums
from hoarfrost.reconstruction.refinement.drawn import RowsAndDraws
from hoarfrost.reconstruction.refinement.e_step import LocalEStep
from hoarfrost.reconstruction.refinement.final_passes import FinalPasses
from hoarfrost.reconstruction.refinement.fold_pass import FoldPass
from hoarfrost.reconstruction.refinement.march import March
from hoarfrost.reconstruction.refinement.refining import Refining
from hoarfrost.reconstruction.refinement.visit import Visit
from hoarfrost.reconstruction.schedule import LEAST_GROWTH
from hoarfrost.reconstruction.state.phase import LeftOut, News, Tally

# A coarser map tells too little of any of it.
COARSEST_A = 7.5
MOST_FITS = 4
# Particles that are looked at first, of whole micrographs as far as they go.
LOOKED_AT_FIRST = 1000


def is_due(env: Env, of: March | FinalPasses, fits: Sequence[float], *, has_changed: bool) -> bool:
    """Whether a march or final passes are to be interrupted by a fit, after those at band limits `fits`.

    A march as soon as its map is fine enough, and at its end where the last fit `has_changed` what particles are seen
    by, or the map is finer by then. Final passes after the first, which comes to a finer map.
    """
    maps, refined = _maps_of(of), of.found if isinstance(of, March) else of.refined
    if not env.settings.refine_optics or maps is None or not refined.independent or not refined.converged:
        return False
    r_max = maps[1]
    if env.length_A / r_max > COARSEST_A or len(fits) >= MOST_FITS:
        return False
    is_finer = not fits or r_max >= LEAST_GROWTH * fits[-1]
    if isinstance(of, FinalPasses):
        return is_finer
    return not fits or (of.is_over and (has_changed or is_finer))


def _maps_of(of: March | FinalPasses) -> tuple[FoldMaps, float] | None:
    """The maps to see particles against, and their band limit, where it is time for a fit."""
    if isinstance(of, March):
        return (of.found.maps, of.found.r_max) if of.maps is None else None
    is_after_first = of.fold_pass is None and of.are_apart and of.of_halves == 1
    return (of.maps, of.r_max) if is_after_first else None


@final
@dataclass(frozen=True)
class FitOptics:
    """A fit `of` what was interrupted by it; `before` are the optics before.

    `fold_pass` is under way over some of the particles, `others` (m,) follow if these gain by anything. `evidence` is
    what was seen. At the end `fitted` is what was found, None where nothing was, and `is_large` as in `Decision`.
    """

    of: March | FinalPasses
    before: FittedOptics
    evidence: Evidence
    others: Tensor
    fold_pass: FoldPass | None = None
    fitted: FittedOptics | None = None
    is_large: bool = False
    is_over: bool = False
    news: tuple[News, ...] = ()

    @classmethod
    def begin(cls, env: Env, of: March | FinalPasses, before: FittedOptics | None) -> FitOptics:
        """Before the first batch, where it is due."""
        before, found = before or FittedOptics.of(env.source.stack), _maps_of(of)
        assert found is not None
        maps, r_max = found
        disc = FourierDisc(env.settings.box, r_max)
        grid_A = changes_A(env.length_A / r_max, before.ctf.voltage_kV)
        groups = int(env.source.stack.group.max()) + 1
        evidence = Evidence.none(env.settings.n_particles, len(grid_A), groups, disc.size)
        first, others = _first(env)
        return cls(of, before, evidence, others, _over(env, maps, r_max, first, of.refining))

    def step(self, env: Env, tally: Tally) -> FitOptics:
        """A batch of the pass, or what its particles come to."""
        assert self.fold_pass is not None
        if self.fold_pass.is_over(env):
            return self._passed(env, self.fold_pass)
        message = None
        if not bool(self.evidence.is_seen.any()):
            message = f"Looks for optics that explain particles better, at {env.length_A / self.fold_pass.r_max:.1f} Å"
        fold_pass, visit = self.fold_pass.step(env, partial(self._look, env))
        news = News(self._stage(env), fold_pass.r_max, images=len(visit.everyone), message=message)
        return dataclasses.replace(self, fold_pass=fold_pass, news=(news,))

    def _stage(self, env: Env) -> int:
        if isinstance(self.of, FinalPasses):
            return env.final_stage
        return len(env.settings.stages_r_max) + env.settings.refined_r_max.index(self.of.found.r_max)

    def _passed(self, env: Env, fold_pass: FoldPass) -> FitOptics:
        # A fit looks at few poses of each particle; what it was in the middle of goes on with as many as before.
        refining = dataclasses.replace(fold_pass.refining.learnt(), effort=self.of.refining.effort)
        r_max = fold_pass.r_max
        found = decided(env, self.evidence, self.before, r_max)
        if found.is_promising and len(self.others):
            more = _over(env, fold_pass.maps, r_max, self.others, refining)
            return dataclasses.replace(self, others=self.others[:0], fold_pass=more, news=())
        of, again = dataclasses.replace(self.of, refining=refining), None
        if found.is_large and isinstance(of, March):
            # Sweeps of this band limit, and what was to follow, come once more.
            of, again = of.again(env), LeftOut("again", self._stage(env))
        if found.optics is not None and isinstance(of, FinalPasses):
            of = of.without_sums()
        news = News(self._stage(env), r_max, message=found.message, left_out=again)
        return dataclasses.replace(
            self, of=of, fold_pass=None, fitted=found.optics, is_large=found.is_large, is_over=True, news=(news,)
        )

    def _look(self, env: Env, e_steps: list[LocalEStep], visit: Visit, draws: list[RowsAndDraws | None]) -> None:
        """Add what a batch shows to the evidence, which is written into."""
        disc, stack = e_steps[0].model.disc, env.source.stack
        images, indices = visit.images, visit.indices
        seen = TransferEvidence(torch.zeros_like(images.data), torch.zeros_like(images.ctf))
        stretch = StretchQuadratics.none(len(indices))
        for e_step, of_class in zip(e_steps, draws, strict=True):
            if of_class is not None:
                rows, of_rows = of_class
                stretched = stretch_quadratics(e_step.model, images[rows], of_rows)
                stretch.slope[rows.cpu()] += stretched.slope
                stretch.curvature[rows.cpu()] += stretched.curvature
                found = transfer_evidence(e_step.model, images[rows], of_rows)
                seen.match[rows] += found.match
                seen.power[rows] += found.power
        slope = env.source.ctf_slope(indices, disc)
        grid_A = changes_A(env.length_A / disc.r_max, self.before.ctf.voltage_kV)
        phase_per_A = math.pi * electron_wavelength_A(stack.ctf.voltage_kV[indices]) / env.length_A**2
        curves = log_likelihood(seen, images.ctf, slope, disc, phase_per_A, grid_A)
        even = EvenQuadratics.of(seen, images.ctf, slope, even_basis(disc))
        n = len(visit.everyone)
        team, evidence = env.team, self.evidence
        evidence.curves[visit.everyone] = team.gather(curves, n).cpu()
        evidence.even.slope[visit.everyone] = team.gather(even.slope, n)
        evidence.even.curvature[visit.everyone] = team.gather(even.curvature, n)
        evidence.stretch.slope[visit.everyone] = team.gather(stretch.slope, n)
        evidence.stretch.curvature[visit.everyone] = team.gather(stretch.curvature, n)
        evidence.is_seen[visit.everyone] = True
        odd = OddSums.none(*evidence.odd.weight.shape[::2])
        odd.add(seen, images.ctf, stack.group[indices], env.folds.half[indices])
        team.sum_(odd.cross, odd.weight, odd.count)
        evidence.odd.plus(odd)


def _over(env: Env, maps: FoldMaps, r_max: float, members: Tensor, refining: Refining) -> FoldPass:
    """A pass over particles that makes no maps, and looks at few poses of each."""
    refining = dataclasses.replace(refining, effort=refining.effort.sparing())
    return dataclasses.replace(FoldPass.begin(env, maps, r_max, maps.box, members, refining), is_for_maps=False)


def _first(env: Env) -> tuple[Tensor, Tensor]:
    """Particles to look at first, micrograph by micrograph in random order, and all others; both by their number."""
    micrograph, generator = env.source.stack.micrograph, env.generator("micrographs")
    shuffled = torch.randperm(len(micrograph), generator=generator)
    turn = torch.randperm(int(micrograph.max()) + 1, generator=generator)
    order = shuffled[turn[micrograph[shuffled]].argsort(stable=True)]
    return order[:LOOKED_AT_FIRST].sort().values, order[LOOKED_AT_FIRST:].sort().values
