"""The map of particles that count in each of their views that look alike, as much as it is likely; and its judgement.

A particle is judged by the map without its fold, over all its views, so that neither its noise nor the view that it
was first seen in helps.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc, fourier_resize
from hoarfrost.model.all_poses.band import box_of
from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.few_poses.statistics import LocalStatistics
from hoarfrost.model.quadratic import mean_of
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.folds import FoldMaps, FoldSums
from hoarfrost.reconstruction.refinement.final_passes import FinalPasses, maps_without, solver_of
from hoarfrost.reconstruction.refinement.poses import Poses
from hoarfrost.reconstruction.schedule import LARGEST_PORTION
from hoarfrost.reconstruction.symmetry.views import BATCH, Views, log_densities, over_views

LEAST_SHARE = 1e-3


def over_weighted_views(env: Env, passes: FinalPasses, views: Views, share: Tensor) -> FinalPasses:
    """Final passes whose maps are solved for anew, with `share` (n, |G|) of each particle in each of its views.

    `views` are those of all particles in the map as it is. Its filter stays, and the half maps do.
    """
    assert passes.solved is not None
    sums = _sums(env, passes, views, share * (1 - passes.poses.junk)[:, None])
    start, fsc = passes.solved.volumes, passes.solved.fsc
    halves = [sums.of_half(half, 0) for half in range(2)]
    solve = solver_of(env, halves, start[0], fsc[0])
    volumes = env.team.once(lambda: solve(mean_of(halves), start[0])[None], start)
    solved = dataclasses.replace(passes.solved, volumes=volumes)
    maps = FoldMaps(env.team.once(partial(maps_without, env, sums, solved, passes.r_max), passes.maps.volumes))
    return dataclasses.replace(passes, solved=solved, maps=maps, poses=_best(env, passes.poses, views, share))


def explained(env: Env, passes: FinalPasses, r_max: float, views: Views) -> Tensor:
    """The evidence of each particle over its views under the map without its fold, up to r_max: (n,) float64.

    It lacks the particle's constant.
    """
    found = torch.zeros(env.settings.n_particles, dtype=torch.float64)
    for half, fold, members in _portions(env):
        volume = fourier_resize(passes.maps.without(half, fold)[0], box_of(r_max))
        found[members] = over_views(log_densities(env, volume, r_max, members, views))
    return found


def _portions(env: Env) -> list[tuple[int, int, Tensor]]:
    return env.folds.portions(torch.arange(env.settings.n_particles), LARGEST_PORTION)


def _sums(env: Env, passes: FinalPasses, views: Views, share: Tensor) -> FoldSums:
    box, device = passes.maps.box, env.settings.device
    empty = torch.zeros(box, box, box, device=device)
    model = LocalModel(empty, FourierDisc(env.settings.box, passes.r_max), env.pose_prior)
    sizes = torch.bincount(env.folds.half, minlength=2).tolist()
    sums = FoldSums()
    for half, fold, members in _portions(env):
        statistics = LocalStatistics(box, env.settings.box, device)
        for rows in torch.split(env.team.share(members), BATCH):
            image, view = (share[rows] > LEAST_SHARE).nonzero().unbind(1)
            rotations, shifts_px = (of_views[image, view] for of_views in views[rows])
            draws = Draws(image, rotations, shifts_px, share[rows[image], view].to(torch.float32))
            statistics.add(model, env.source.images(rows, model.disc), draws.to(device))
        quadratic = statistics.quadratic(sizes[half])
        env.team.sum_(quadratic.linear, quadratic.kernel)
        sums = sums.plus(half, fold, [quadratic])
    return sums


def _best(env: Env, poses: Poses, views: Views, share: Tensor) -> Poses:
    """The poses in their most likely views."""
    most, view = share.max(dim=1)
    rotations, shifts_px = poses.rotations.clone(), torch.zeros_like(poses.shifts_A)
    for rows in torch.split(torch.arange(len(view)), BATCH):
        of_rows = views[rows]
        rotations[rows], shifts_px[rows] = (each[torch.arange(len(rows)), view[rows]] for each in of_rows)
    return dataclasses.replace(
        poses,
        rotations=rotations,
        shifts_A=shifts_px * env.settings.pixel_size_A,
        probability=poses.probability * most,
    )
