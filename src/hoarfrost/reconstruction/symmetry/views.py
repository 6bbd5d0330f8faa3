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
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.refinement.poses import Poses
from hoarfrost.symmetry.axes import Axes
from hoarfrost.symmetry.point_group import PointGroup

BATCH = 200


@dataclass(frozen=True)
class Views:
    """The views of n particles at `rotations` Q (n, 3, 3) and `shifts_px` t (n, 2), float64, that `group` makes alike.

    `axes` are those of the map, in voxels of the images. Views are of the map, or `in_frame` of the group. The first is
    the pose itself.
    """

    rotations: Tensor
    shifts_px: Tensor
    axes: Axes
    group: PointGroup
    in_frame: bool = False

    @classmethod
    def of(cls, env: Env, poses: Poses, axes: Axes, group: PointGroup, *, in_frame: bool = False) -> Views:
        """Of all particles in their best poses."""
        return cls(poses.rotations, poses.shifts_A / env.settings.pixel_size_A, axes, group, in_frame)

    def __getitem__(self, members: Tensor) -> tuple[Tensor, Tensor]:
        """Q_g (m, |G|, 3, 3) and t_g (m, |G|, 2) of some particles (m,)."""
        poses, centre = self.rotations[members], self.axes.centre
        rotations = (poses @ self.axes.rotation.T)[:, None] @ self.group.rotations
        shifts_px = (self.shifts_px[members] + (poses @ centre)[:, :2])[:, None]
        if self.in_frame:
            return rotations.contiguous(), shifts_px.repeat(1, self.group.order, 1)
        rotations = rotations @ self.axes.rotation
        return rotations.contiguous(), (shifts_px - (rotations @ centre)[..., :2]).contiguous()


def log_densities(env: Env, volume: Tensor, r_max: float, members: Tensor, views: Views) -> Tensor:
    """log p(Ĩ, Q_g, t_g | V) less the image's constant, of particles `members` (m,): (m, |G|) float64.

    `volume` (box, box, box) is V.
    """
    model = LocalModel(volume, FourierDisc(env.settings.box, r_max), env.pose_prior)
    parts = [torch.zeros(0, views.group.order, dtype=torch.float64)]
    for batch in torch.split(env.team.share(members), BATCH):
        rotations, shifts_px = (of_views.to(env.settings.device) for of_views in views[batch])
        found = model.log_density(env.source.images(batch, model.disc), rotations, shifts_px)
        parts.append(found.to("cpu", torch.float64))
    return env.team.gather(torch.cat(parts), len(members))


def over_views(log_density: Tensor) -> Tensor:
    """The evidence of particles over their views, (m,) of (m, |G|)."""
    evidence: Tensor = log_density.logsumexp(dim=1) - math.log(log_density.shape[1])
    return evidence
