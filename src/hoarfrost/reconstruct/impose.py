"""A point group imposed on a map that was found without it.

Random starts with a symmetry of their own are caught in wrong solutions more often than starts without. So `auto` first
sums over all poses in C1, finds the axes in the map (`model.symmetry_axes`), moves the map there, averages it over the
group, and goes on at the same band limit until held-out particles are explained no better.
"""

from __future__ import annotations

from hoarfrost.model.symmetry import PointGroup
from hoarfrost.model.symmetry_axes import find_axes, in_frame
from hoarfrost.reconstruct.loop import Optimised, Reconstruction
from hoarfrost.reconstruct.methods import AutoStage


def impose_symmetry(run: Reconstruction, found: Optimised) -> Optimised:
    """The map with the symmetry that the settings ask for, which `run` keeps to from now on."""
    group = PointGroup(run.settings.symmetry)
    if group.order == run.group.order:
        return found
    stage = run.settings.stages_r_max.index(found.band.r_max)
    run.group = group
    band = run.make_band(stage)
    support = band.support(run.diameter)

    axes = find_axes(found.volume, group, band.r_max)
    volume = group(in_frame(found.volume, axes)) * support
    volume = run.team.from_first(lambda: volume.clamp(min=0), volume)
    run.say(
        f"Axes of {group.name} found: turned about them, the map correlates by {axes.correlation:.2f} with itself",
        stage,
    )
    method = AutoStage(band, support, volume, team=run.team)
    gain = run.run_stage(stage, band, method)
    return Optimised(method.volume, band, found.gain if gain is None else gain, not run.out_of_epochs())
