"""A point group imposed on a map that was found without it.

Random starts with a symmetry of their own are caught in wrong solutions more often than starts without, and so are
maps whose axes were placed while they were still vague. So `auto` sums over all poses and refines in C1 for a while,
finds the axes in the refined map (`symmetry.axes`), moves it there, averages it over the group and refines it
again, from the band limit where refinement began. Where there was no refinement it goes on with the sums over all
poses. Which group it is can be found out as well (`symmetry_search`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.reconstruction.estimate.folds import common
from hoarfrost.reconstruction.estimate.held_out import Optimised
from hoarfrost.reconstruction.estimate.junk import Junk
from hoarfrost.reconstruction.refinement.march import march
from hoarfrost.reconstruction.refinement.sweep import Refinement
from hoarfrost.reconstruction.starts.loop import Reconstruction
from hoarfrost.reconstruction.starts.online_em import AutoStage
from hoarfrost.reconstruction.state.checkpoints import KeptWhole, State
from hoarfrost.reconstruction.symmetry.search import impose, try_groups
from hoarfrost.symmetry.point_group import PointGroup

# Axes are found by what is coarser, and tested up to here; to refine in C1 any further takes time for nothing.
LAST_R_MAX = 14.0


@dataclass(frozen=True)
class Symmetric(KeptWhole):
    """Maps (C, box, box, box) with the symmetry of a point group, and whether they come from a refinement."""

    symmetry: str
    volumes: Tensor
    is_refined: bool


@dataclass(frozen=True)
class Imposed:
    """Maps to go on with, and the name of the point group that they keep to from now on."""

    symmetry: str
    optimised: Optimised

    def state(self) -> State:
        """All there is to know of it."""
        return {"symmetry": self.symmetry, "optimised": self.optimised.state()}

    @classmethod
    def restored(cls, state: State) -> Imposed:
        """The one whose state that was."""
        return cls(state["symmetry"], Optimised.restored(state["optimised"]))


def impose_symmetry(run: Reconstruction, found: Optimised) -> Optimised:
    """The maps with the symmetry that the settings ask for, which `run` keeps to from now on."""
    imposed = run.checkpoints.once("symmetry", partial(_impose, run, found), Imposed)
    run.keep_to(imposed.symmetry)
    return imposed.optimised


def _impose(run: Reconstruction, found: Optimised) -> Imposed:
    asked = run.settings.symmetry
    if asked != "auto" and PointGroup(asked).order == run.group.order:
        return Imposed(asked, found)
    symmetric = run.checkpoints.once("axes", partial(_symmetric, run, found), Symmetric)
    run.keep_to(symmetric.symmetry)
    if asked == "auto" and symmetric.symmetry == "C1":
        return Imposed("C1", found)
    band = run.make_band(found.stage)
    support = band.support(run.diameter)
    volumes = torch.stack([fourier_resize(volume, band.box) for volume in symmetric.volumes]) * support
    if symmetric.is_refined:
        run.share_done.begin_again(len(run.settings.stages_r_max))
        return Imposed(symmetric.symmetry, dataclasses.replace(found, volumes=volumes))
    junk = Junk.like(run.sample(band.disc), band.disc, run.source.mask_power)
    method = AutoStage(band, support, volumes.clamp(min=0), team=run.team, junk=junk, folds=run.folds)
    gain = run.run_stage(found.stage, band, method)
    optimised = dataclasses.replace(
        found,
        volumes=method.volumes,
        log_shares=method.log_shares,
        gain=found.gain if gain is None else gain,
        converged=not run.out_of_epochs(),
    )
    return Imposed(symmetric.symmetry, optimised)


def _symmetric(run: Reconstruction, found: Optimised) -> Symmetric:
    """Refine without symmetry, find the axes, and average over the group."""
    with Refinement.of(run) as refinement:
        refined = march(refinement, found, LAST_R_MAX)
        volumes = common(refined.volumes)
        if run.settings.symmetry == "auto":
            name, volume = _found_out(run, refinement, volumes[0], refined.r_max)
            return Symmetric(name, volume[None], refined.independent)
    group = PointGroup(run.settings.symmetry)
    imposed = [impose(volume, group, refined.r_max, run.team) for volume in volumes]
    correlations = " and ".join(f"{correlation:.2f}" for _, correlation in imposed)
    told = f"Axes of {group.name} found: turned about them, the map correlates by {correlations}"
    run.say(told, found.stage)
    return Symmetric(group.name, torch.stack([volume for volume, _ in imposed]), refined.independent)


def _found_out(run: Reconstruction, refinement: Refinement, volume: Tensor, r_max: float) -> tuple[str, Tensor]:
    """The name of the point group of a map, and the map that has it; C1 and the map itself where it has none."""
    found = try_groups(
        volume,
        r_max,
        lambda v: refinement.held_out_nll(v[None], r_max)[0],
        run.team,
        run.checkpoints,
    )
    trials = list(found)
    if not trials:
        run.say("No symmetry: the map does not look like itself about any axis", run.final_stage, r_max)
        return "C1", volume
    told = ", ".join(trial.summary() for trial in trials)
    right = [trial for trial in trials if trial.is_right]
    name, symmetric = "C1", volume
    if right:
        best = max(right, key=lambda trial: (trial.group.order, trial.gain))
        name, symmetric = best.group.name, best.volume
    run.say(f"Symmetry: {name} (held-out particles are explained better, in nats, by {told})", run.final_stage, r_max)
    return name, symmetric
