"""The map that the true poses give: solved for as a run's last map is, from the particles that are no junk."""

from __future__ import annotations

import torch
from torch import Tensor

from hard_sets import Particles
from hoarfrost.io.mrc import read_volume
from hoarfrost.maths.fourier import FourierDisc, fourier_resize, radius_grid
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.model.all_poses.band import box_of
from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.few_poses.statistics import LocalStatistics
from hoarfrost.model.quadratic import Quadratic, mean_of
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.estimate.m_step import MStep, mean_curvature, wiener_ridge
from hoarfrost.reconstruction.run import open_source
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.settings.plan import resolve
from hoarfrost.symmetry.point_group import PointGroup
from judgement import column

BATCH = 200


def true_pose_map(particles: Particles) -> Tensor:
    """The map of the true poses on the box of the truth, averaged over the symmetry that runs are told."""
    image_box, pixel_size_A = particles.hard_set.box, particles.hard_set.pixel_size_A
    group = PointGroup(particles.hard_set.symmetry)
    stack = ParticleStack.open(particles.true_poses_path)
    assert stack.poses is not None
    # The images stay whole, as the truth is.
    settings = resolve(stack, Options(), output=particles.true_poses_path.parent, cuts=False)
    r_max = settings.refined_r_max[-1]
    disc, box = FourierDisc(image_box, r_max), box_of(r_max)
    source = open_source(stack, settings)
    empty = torch.zeros(box, box, box)
    model = LocalModel(empty, disc, PosePrior(1.0, 3.0))
    rotations, shifts_px = stack.poses[0], stack.poses[1] / pixel_size_A
    kept = torch.from_numpy(column(particles.true_poses_path, "hoarfrostTrueJunk") == 0).nonzero().squeeze(1)
    parts: list[Quadratic] = []
    for half in (kept[::2], kept[1::2]):
        statistics = LocalStatistics(box, image_box, group=group)
        for batch in torch.split(half, BATCH):
            image = torch.arange(len(batch))
            draws = Draws(image, rotations[batch], shifts_px[batch], torch.ones(len(batch)))
            statistics.add(model, source.images(batch, disc), draws)
        parts.append(statistics.quadratic(len(half)))
    inside = radius_grid(box, 3) <= settings.diameter_A / particles.hard_set.length_A * box / 2
    support = inside.to(torch.float32)
    halves = [MStep(support, positive=False)(part, empty) for part in parts]
    curvature = mean_curvature(mean_of(parts).kernel, support)
    ridge = wiener_ridge(curvature, fourier_shell_correlation(*halves))
    solve = MStep(support, positive=False, shell_ridge=ridge)
    found = solve(mean_of(parts), (halves[0] + halves[1]) / 2)
    return fourier_resize(found, image_box, r_max)


def true_pose_fsc(particles: Particles, found: Tensor) -> Tensor:
    """FSC of the map of the true poses with the truth."""
    return fourier_shell_correlation(found, torch.from_numpy(read_volume(particles.truth_path)[0]))
