"""A point group imposed on a map that was found without it.

Random starts with a symmetry of their own are caught in wrong solutions more often than starts without, and so are
maps whose axes were placed while they were still vague. So `auto` sums over all poses and refines in C1, finds the axes
in the refined map (`model.symmetry_axes`), moves it there, averages it over the group and refines it again, from the
band limit where refinement began. Where there was no refinement it goes on with the sums over all poses for a while.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from hoarfrost.fourier import fourier_resize
from hoarfrost.model.symmetry import PointGroup
from hoarfrost.model.symmetry_axes import find_axes, in_frame
from hoarfrost.reconstruct.auto import AutoStage
from hoarfrost.reconstruct.loop import Optimised, Reconstruction
from hoarfrost.reconstruct.refine import Refinement


def impose_symmetry(run: Reconstruction, found: Optimised) -> Optimised:
    """The map with the symmetry that the settings ask for, which `run` keeps to from now on."""
    group = PointGroup(run.settings.symmetry)
    if group.order == run.group.order:
        return found
    refined = Refinement(run).march(found)
    common = (refined.volumes[0] + refined.volumes[1]) / 2
    run.group = group
    band = run.make_band(found.stage)
    support = band.support(run.diameter)

    def imposed(volume: Tensor) -> Tensor:
        axes = find_axes(volume, group, band.r_max)
        told = f"Axes of {group.name} found: turned about them, the map correlates by {axes.correlation:.2f}"
        run.say(told, found.stage)
        return group(in_frame(volume, axes)) * support

    volumes = torch.stack([fourier_resize(volume, band.box) for volume in common])
    symmetric = run.team.from_first(lambda: torch.stack([imposed(volume) for volume in volumes]), volumes)
    if refined.independent:
        return dataclasses.replace(found, volumes=symmetric)
    method = AutoStage(band, support, symmetric.clamp(min=0), team=run.team)
    gain = run.run_stage(found.stage, band, method)
    return dataclasses.replace(
        found,
        volumes=method.volumes,
        log_shares=method.log_shares,
        gain=found.gain if gain is None else gain,
        converged=not run.out_of_epochs(),
    )
