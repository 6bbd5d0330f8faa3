"""Errors of estimated poses against true ones, after the best change of the reference's frame.

Projections do not tell the frame of the volume, nor its hand. If the estimated volume is the true one turned,
moved and perhaps turned inside out,

    V_true(x) = V′( G (x − d) )        V′(x) = V_est(x), or V_est(−x) where mirrored,

then, with the slice theorem P_R V(k) = V̂(Rᵀ(kx, ky, 0)),

    R_true = M R_est G                 M = 1, or diag(−1, −1, 1) where mirrored
    t_true = t_est − (R_true d)_xy

since −Rᵀ(kx, ky, 0) = (M R)ᵀ(kx, ky, 0). With the truth as reference, G and d are R and t of
`hoarfrost.evaluation.align`. Here they are found from the poses alone, robustly, as many of these may be wrong.

Where V_est has the symmetry of a group, R_est g shows it as R_est does, for every rotation g of the group. The one
nearest to the truth counts. Chance looks better then, too: random poses of a D7 map are 62° off, not 132°.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.symmetry.point_group import PointGroup

N_CANDIDATES = 400
N_VOTERS = 4000
KERNEL_DEG = 10.0


@dataclass(frozen=True)
class PoseErrors:
    """How far n estimated poses are from the true ones, in the frame that suits them best.

    `angles_deg` (n,) is the angle of the rotation between the two, `view_angles_deg` (n,) that between the
    directions of view alone, `shifts_A` (n,) the distance of the in-plane shifts, all float64. `rotation` G (3, 3),
    `shift_A` d (3,) and `mirrored` are the frame's change; see this module.
    """

    angles_deg: Tensor
    view_angles_deg: Tensor
    shifts_A: Tensor
    rotation: Tensor
    shift_A: Tensor
    mirrored: bool

    @property
    def median_angle_deg(self) -> float:
        """Median of `angles_deg`; about 132 for random poses."""
        return float(self.angles_deg.median())

    @property
    def median_shift_A(self) -> float:
        """Median of `shifts_A`."""
        return float(self.shifts_A.median())

    def fraction_within(self, angle_deg: float) -> float:
        """Fraction of the particles whose angle is at most `angle_deg` from the truth."""
        return float((self.angles_deg <= angle_deg).double().mean())


def pose_errors(
    rotations: Tensor, shifts_A: Tensor, true_rotations: Tensor, true_shifts_A: Tensor, group: PointGroup | None = None
) -> PoseErrors:
    """Compare estimated poses with true ones, particle by particle.

    Rotations are (n, 3, 3), reference → image frame; shifts (n, 2), x and y in Å, by which the particle is moved.
    `group` is the symmetry of the map that the estimated poses belong to, about that map's axes; none unless given.
    Raises ValueError where the shapes differ or n is 0.
    """
    group = group or PointGroup()
    n = rotations.shape[0]
    shapes = [tuple(x.shape) for x in (rotations, shifts_A, true_rotations, true_shifts_A)]
    if n == 0 or shapes != [(n, 3, 3), (n, 2), (n, 3, 3), (n, 2)]:
        raise ValueError(f"poses must be (n, 3, 3) and (n, 2), n ≥ 1, estimated and true; found {shapes}")
    est, true = rotations.to("cpu", torch.float64), true_rotations.to("cpu", torch.float64)
    mirror = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    # G of every particle by itself, (n, 3, 3); right ones agree, wrong ones are anywhere.
    frames_of = {False: est.transpose(1, 2) @ true, True: (mirror @ est).transpose(1, 2) @ true}
    votes = {hand: _vote(frames, group) for hand, frames in frames_of.items()}
    mirrored = votes[True][1] > votes[False][1]
    frame = votes[mirrored][0]

    turned = true @ _nearest(frames_of[mirrored], frame, group).transpose(1, 2) @ frame
    angles_deg = _angle_deg(turned.transpose(1, 2) @ true)
    cosine = (turned[:, 2] * true[:, 2]).sum(-1).clamp(-1, 1)
    difference_A = shifts_A.to("cpu", torch.float64) - true_shifts_A.to("cpu", torch.float64)
    origin_A = _common_origin_A(true[:, :2], difference_A, angles_deg)
    errors_A = (difference_A - torch.einsum("nij,j->ni", true[:, :2], origin_A)).norm(dim=-1)
    return PoseErrors(angles_deg, torch.rad2deg(torch.acos(cosine)), errors_A, frame, origin_A, mirrored)


def _angle_deg(rotations: Tensor) -> Tensor:
    return _angle_of_trace_deg(rotations.diagonal(dim1=-2, dim2=-1).sum(-1))


def _angle_of_trace_deg(trace: Tensor) -> Tensor:
    return torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1)))


def _closeness(angle_deg: Tensor, width_deg: float = KERNEL_DEG) -> Tensor:
    return torch.exp(-0.5 * (angle_deg / width_deg).square())


def _nearest(frames: Tensor, to: Tensor, group: PointGroup) -> Tensor:
    """Of the equivalents gᵀ F of frames (n, 3, 3), those nearest to the frame `to` (3, 3)."""
    # Where R g goes for R, G = Rᵀ R_true becomes gᵀ G. The angle of gᵀ F toᵀ is that of (F toᵀ) gᵀ.
    turns = frames @ to.T
    return turns.transpose(1, 2) @ group.nearest(turns) @ frames


def _vote(frames: Tensor, group: PointGroup) -> tuple[Tensor, float]:
    """The frame where most of `frames` (n, 3, 3), or their equivalents, crowd: (3, 3), and the weight of that crowd."""
    n = frames.shape[0]
    # Evenly spaced particles stand for all: no random choice, the same answer every time.
    candidates = frames[torch.linspace(0, n - 1, min(n, N_CANDIDATES)).round().long()]
    voters = frames[torch.linspace(0, n - 1, min(n, N_VOTERS)).round().long()]
    trace = torch.full((len(candidates), len(voters)), -1.0, dtype=frames.dtype)
    for rotation in group.rotations:
        trace = torch.maximum(trace, candidates.flatten(1) @ (rotation @ voters).flatten(1).T)
    best = candidates[_closeness(_angle_of_trace_deg(trace)).sum(1).argmax()]
    # Then the weighted mean of those near it, the kernel narrowing to the crowd's own width.
    width_deg = KERNEL_DEG
    for _ in range(10):
        near_best = _nearest(frames, best, group)
        angle_deg = _angle_deg(best.T @ near_best)
        weight = _closeness(angle_deg, width_deg)
        u, _, v = torch.linalg.svd(torch.einsum("n,nij->ij", weight, near_best))
        best = u @ torch.diag(torch.tensor([1.0, 1.0, float(torch.det(u @ v).sign())], dtype=u.dtype)) @ v
        near = angle_deg[angle_deg <= 3 * width_deg]
        width_deg = min(KERNEL_DEG, max(float(near.median()) if len(near) else KERNEL_DEG, 0.1))
    return best, float(_closeness(_angle_deg(best.T @ _nearest(frames, best, group))).sum())


def _common_origin_A(planes: Tensor, difference_A: Tensor, angles_deg: Tensor) -> Tensor:
    """The d (3,) of R_xy d ≈ t_est − t_true, by least squares whose outliers lose their weight."""
    weight = _closeness(angles_deg) + 1e-6
    origin = torch.zeros(3, dtype=torch.float64)
    for _ in range(20):
        normal = torch.einsum("n,nij,nik->jk", weight, planes, planes)
        slope = torch.einsum("n,nij,ni->j", weight, planes, difference_A)
        # All views along one axis leave d undetermined along it: the smallest d will do.
        origin = torch.linalg.pinv(normal, rtol=1e-9, hermitian=True) @ slope
        residual = (difference_A - torch.einsum("nij,j->ni", planes, origin)).norm(dim=-1)
        scale = max(float(residual.median()), 1e-6)
        weight = (_closeness(angles_deg) + 1e-6) / (1 + (residual / scale).square())
    return origin
