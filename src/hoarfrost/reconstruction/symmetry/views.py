"""The views of each particle that a nearly symmetric map makes alike, and how likely each is.

With axes at R and c, a particle at the pose (Q, t) of the map is at (Q Rᵀ, t + (Q c)_xy) of the map moved to the
group's frame. There the views alike are Q Rᵀ g. Moved back they are

    Q_g = Q Rᵀ g R        t_g = t + ((Q − Q_g) c)_xy

With l_g = log p(Ĩ, Q_g, t_g | V) the particle's evidence over all of them is log Σ_g exp l_g − log |G|.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rows import Rows
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.refinement.poses import Poses
from hoarfrost.symmetry.axes import Axes
from hoarfrost.symmetry.point_group import PointGroup

BATCH = 200


@dataclass(frozen=True)
class Views(Rows):
    """Of n particles the poses that look alike: `rotations` (n, |G|, 3, 3) and `shifts_px` (n, |G|, 2), float64.

    The first is the pose that they were found in.
    """

    rotations: Tensor
    shifts_px: Tensor

    def __len__(self) -> int:
        return len(self.rotations)


def views_of(env: Env, poses: Poses, axes: Axes, group: PointGroup, *, in_frame: bool = False) -> Views:
    """The views of all particles in a map whose axes, in voxels of the images, are these; or in the group's frame."""
    turned = poses.rotations @ axes.rotation.T
    rotations = turned[:, None] @ group.rotations
    shifts_px = poses.shifts_A / env.settings.pixel_size_A + (poses.rotations @ axes.centre)[:, :2]
    every = shifts_px[:, None].expand(-1, group.order, -1)
    if not in_frame:
        rotations = rotations @ axes.rotation
        every = every - (rotations @ axes.centre)[..., :2]
    return Views(rotations.contiguous(), every.contiguous())


def log_densities(env: Env, volume: Tensor, r_max: float, members: Tensor, views: Views) -> Tensor:
    """log p(Ĩ, Q_g, t_g | V) less the image's constant, of particles `members` (m,) with their views: (m, |G|) float64.

    `volume` (box, box, box) is V.
    """
    model = LocalModel(volume, FourierDisc(env.settings.box, r_max), env.pose_prior)
    own, own_views = env.team.share(members), env.team.share(views)
    parts = [torch.zeros(0, views.shifts_px.shape[1], dtype=torch.float64)]
    for rows in torch.split(torch.arange(len(own)), BATCH):
        images, some = env.source.images(own[rows], model.disc), own_views[rows].to(env.settings.device)
        parts.append(model.log_density(images, some.rotations, some.shifts_px).to("cpu", torch.float64))
    return env.team.gather(torch.cat(parts), len(members))


def over_views(log_density: Tensor) -> Tensor:
    """The evidence of particles over their views, (m,) of (m, |G|)."""
    evidence: Tensor = log_density.logsumexp(dim=1) - math.log(log_density.shape[1])
    return evidence
