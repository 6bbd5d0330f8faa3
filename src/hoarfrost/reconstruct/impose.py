"""A point group imposed on a map that was found without it.

Random starts with a symmetry of their own are caught in wrong solutions more often than starts without, and so are
maps whose axes were placed while they were still vague. So `auto` sums over all poses and refines in C1 for a while,
finds the axes in the refined map (`model.symmetry_axes`), moves it there, averages it over the group and refines it
again, from the band limit where refinement began. Where there was no refinement it goes on with the sums over all
poses. Which group it is can be found out as well (`symmetry_search`).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from hoarfrost.fourier import fourier_resize
from hoarfrost.model.symmetry import PointGroup
from hoarfrost.reconstruct.auto import AutoStage
from hoarfrost.reconstruct.loop import Optimised, Reconstruction
from hoarfrost.reconstruct.refine import Refinement
from hoarfrost.reconstruct.symmetry_search import impose, try_groups

# Axes are found by what is coarser, and tested up to here; to refine in C1 any further takes time for nothing.
LAST_R_MAX = 14.0


def impose_symmetry(run: Reconstruction, found: Optimised) -> Optimised:
    """The maps with the symmetry that the settings ask for, which `run` keeps to from now on."""
    settings = run.settings
    finds_out = settings.symmetry == "auto"
    if not finds_out and PointGroup(settings.symmetry).order == run.group.order:
        return found
    refinement = Refinement(run)
    refined = refinement.march(found, LAST_R_MAX)
    common = (refined.volumes[0] + refined.volumes[1]) / 2
    if finds_out:
        name, symmetric = _found_out(run, refinement, common[0], refined.r_max)
        run.settings = settings.model_copy(update={"symmetry": name})
        if name == "C1":
            return found
        common, run.group = symmetric[None], PointGroup(name)
    else:
        run.group = PointGroup(settings.symmetry)
        imposed = [impose(volume, run.group, refined.r_max, run.team) for volume in common]
        correlations = " and ".join(f"{correlation:.2f}" for _, correlation in imposed)
        told = f"Axes of {run.group.name} found: turned about them, the map correlates by {correlations}"
        run.say(told, found.stage)
        common = torch.stack([volume for volume, _ in imposed])
    band = run.make_band(found.stage)
    support = band.support(run.diameter)
    volumes = torch.stack([fourier_resize(volume, band.box) for volume in common]) * support
    if refined.independent:
        return dataclasses.replace(found, volumes=volumes)
    method = AutoStage(band, support, volumes.clamp(min=0), team=run.team)
    gain = run.run_stage(found.stage, band, method)
    return dataclasses.replace(
        found,
        volumes=method.volumes,
        log_shares=method.log_shares,
        gain=found.gain if gain is None else gain,
        converged=not run.out_of_epochs(),
    )


def _found_out(run: Reconstruction, refinement: Refinement, volume: Tensor, r_max: float) -> tuple[str, Tensor]:
    """The name of the point group of a map, and the map that has it; C1 and the map itself where it has none."""
    trials = list(try_groups(volume, r_max, lambda v: refinement.held_out_nll(v[None], r_max)[0], run.team))
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
