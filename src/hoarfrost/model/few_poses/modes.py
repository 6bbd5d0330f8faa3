"""The few poses of each image that its posterior gathers around: found on a quadrature, merged, and dropped."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.rows import Rows
from hoarfrost.model.few_poses.draws import POSE_SIZE
from hoarfrost.model.few_poses.likelihood import Peaks
from hoarfrost.model.quadrature import LikelyPoses, OrientationQuadrature, ShiftQuadrature
from hoarfrost.symmetry.point_group import PointGroup

# Nodes this many angular steps apart belong to one mode of the posterior.
REACH_STEPS = 1.6
# Modes closer than so many standard deviations of the better one are one.
MERGED_SIGMAS = 2.0
# Likely nodes of an image that are looked at under a large point group; more would take too much memory.
MOST_NODES = 4096


@dataclass(frozen=True)
class Modes(Rows):
    """Up to m poses for each of b images: `rotations` (b, m, 3, 3) and `shifts_px` (b, m, 2) float64.

    `log_mass` (b, m) is the log of the posterior mass about each, up to a constant of the image; −inf where there is no
    pose. `precision` (b, m, 5, 5) is as in `Peaks`.
    """

    rotations: Tensor
    shifts_px: Tensor
    log_mass: Tensor
    precision: Tensor

    @staticmethod
    def none(b: int, m: int, device: torch.device | str = "cpu") -> Modes:
        """Room for m modes of b images, all empty."""
        return Modes(
            torch.eye(3, dtype=torch.float64, device=device).repeat(b, m, 1, 1),
            torch.zeros(b, m, 2, dtype=torch.float64, device=device),
            torch.full((b, m), -math.inf, device=device),
            torch.eye(POSE_SIZE, device=device).repeat(b, m, 1, 1),
        )

    def __setitem__(self, images: Tensor, modes: Modes) -> None:
        """Keep the first modes of `modes`, as many as there is room for, as those of the images."""
        used = min(self.log_mass.shape[1], modes.log_mass.shape[1])
        self.log_mass[images] = -math.inf
        self.rotations[images, :used] = modes.rotations[:, :used]
        self.shifts_px[images, :used] = modes.shifts_px[:, :used]
        self.log_mass[images, :used] = modes.log_mass[:, :used]
        self.precision[images, :used] = modes.precision[:, :used]

    def share(self) -> Tensor:
        """Share of the image's posterior mass in each mode, (b, m); zero for images without any."""
        return torch.softmax(self.log_mass, dim=1).nan_to_num(0.0)

    def joined(self, other: Modes) -> Modes:
        """The modes of both, for the same images."""
        return Modes.cat([self, other], dim=1)

    def with_peaks(self, image: Tensor, place: Tensor, peaks: Peaks) -> Modes:
        """The modes with those at (image, place), (n,) each, moved to the peaks that they climbed to, and no others."""
        moved = Modes(*(column.clone() for column in self.columns()))
        moved.rotations[image, place] = peaks.rotations
        moved.shifts_px[image, place] = peaks.shifts_px
        moved.log_mass.fill_(-math.inf)
        moved.log_mass[image, place] = peaks.log_mass()
        moved.precision[image, place] = peaks.precision
        return moved

    def tidied(self, least_share: float, group: PointGroup | None = None) -> Modes:
        """Best first, without those that are one with a better mode or hold less than `least_share` of the mass.

        Poses that show a map of symmetry `group` alike are one.
        """
        order = self.log_mass.argsort(dim=1, descending=True, stable=True)
        rows = torch.arange(len(order), device=order.device).unsqueeze(1)
        rotations, shifts_px = self.rotations[rows, order], self.shifts_px[rows, order]
        log_mass, precision = self.log_mass[rows, order], self.precision[rows, order]
        apart = pose_differences(rotations, shifts_px, rotations, shifts_px, group)
        squared = torch.einsum("bijx,bixy,bijy->bij", apart, precision, apart)
        twin = (squared < MERGED_SIGMAS**2) & log_mass.isfinite().unsqueeze(2)
        twin = torch.triu(twin, diagonal=1).any(dim=1)
        log_mass = log_mass.masked_fill(twin, -math.inf)
        share = torch.softmax(log_mass, dim=1).nan_to_num(0.0)
        log_mass = log_mass.masked_fill(share < least_share, -math.inf)
        order = log_mass.argsort(dim=1, descending=True, stable=True)
        longest = max(1, int(log_mass.isfinite().sum(dim=1).max()))
        order = order[:, :longest]
        return Modes(rotations[rows, order], shifts_px[rows, order], log_mass[rows, order], precision[rows, order])


def pose_differences(
    rotations: Tensor,
    shifts_px: Tensor,
    to_rotations: Tensor,
    to_shifts_px: Tensor,
    group: PointGroup | None = None,
) -> Tensor:
    """(ω, s) that takes each of i poses of b images to each of j others, float32 (b, i, j, 5).

    Exact to second order in small angles. `rotations` are (b, i, 3, 3) and (b, j, 3, 3), `shifts_px` (b, i, 2) and
    (b, j, 2). With a `group`, to the nearest pose that is equivalent.
    """
    # One product of large matrices takes an eighth of the time of many small ones.
    turn = torch.einsum("bixy,bjxz->bijyz", rotations, to_rotations).to(torch.float32)
    if group is not None:
        turn = group.nearest(turn)
    # sin(angle) · axis is the antisymmetric part; past a right angle it would shrink again, so it is stretched there.
    part = turn - turn.transpose(-1, -2)
    vector = torch.stack([part[..., 2, 1], part[..., 0, 2], part[..., 1, 0]], dim=-1) / 2
    cosine = (turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    sine = vector.norm(dim=-1)
    angle = torch.atan2(sine, cosine)
    vector = vector * torch.where(sine > 1e-9, angle / sine.clamp(min=1e-9), 1.0).unsqueeze(-1)
    # Half a turn has no antisymmetric part. Any axis will do, as such poses are far apart anyway.
    half_turn = ((sine <= 1e-9) & (cosine < 0)).unsqueeze(-1)
    vector = torch.where(half_turn, math.pi / math.sqrt(3), vector)
    shift = to_shifts_px.unsqueeze(1) - shifts_px.unsqueeze(2)
    return torch.cat([vector, shift.to(torch.float32)], dim=-1)


def modes_of_quadrature(
    likely: LikelyPoses,
    n_images: int,
    orientations: OrientationQuadrature,
    shifts: ShiftQuadrature,
    most: int,
    group: PointGroup | None = None,
) -> Modes:
    """Up to `most` modes of each image among likely nodes, best first: the best node of each neighbourhood.

    The neighbourhoods of poses that show a map of symmetry `group` alike are one.
    """
    group = group or PointGroup()
    device = likely.node.device
    order = torch.argsort(likely.probability, descending=True, stable=True)
    order = order[torch.argsort(likely.image[order], stable=True)]
    image, probability = likely.image[order], likely.probability[order]
    count = torch.bincount(image, minlength=n_images)
    rank = torch.arange(len(image), device=device) - (count.cumsum(0) - count)[image]
    # Only the likeliest nodes can begin a mode; in a symmetric map, as many for each rotation.
    kept = rank < min(16 * most * group.order, max(16 * most, MOST_NODES))
    width = int(rank[kept].max()) + 1
    left = torch.zeros(n_images, width, device=device)
    node = torch.zeros(n_images, width, dtype=torch.int64, device=device)
    shift = torch.zeros_like(node)
    left[image[kept], rank[kept]] = probability[kept].to(left.dtype)
    node[image[kept], rank[kept]] = likely.node[order][kept]
    shift[image[kept], rank[kept]] = likely.shift[order][kept]
    rotations = orientations.rotations().to(device)[node]
    single = rotations.to(torch.float32).flatten(2)
    nearest_trace = 1 + 2 * math.cos(math.radians(REACH_STEPS * orientations.angular_step_deg))
    modes, rows = Modes.none(n_images, most, device), torch.arange(n_images, device=device)
    for place in range(most):
        highest, best = left.max(dim=1)
        alike = (rotations[rows, best].unsqueeze(1) @ group.rotations.to(device)).to(torch.float32).flatten(2)
        near = torch.bmm(single, alike.transpose(1, 2)).amax(dim=2) > nearest_trace
        modes.rotations[:, place] = rotations[rows, best]
        modes.shifts_px[:, place] = shifts.shifts_px.to(device)[shift[rows, best]]
        modes.log_mass[:, place] = torch.where(highest > 0, (left * near).sum(dim=1).log(), -math.inf)
        left = left.masked_fill(near, 0.0)
    return modes
