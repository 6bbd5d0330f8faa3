"""Everything that a band limit fixes: disc, quadratures, slice operator. The map's likelihood is read off here."""

import math
from typing import Any

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc, radius_grid
from hoarfrost.model.all_poses.marginal import Posterior, marginalise, mean_nll
from hoarfrost.model.all_poses.mixture import MixturePosterior, marginalise_mixture, mixture_with_statistics
from hoarfrost.model.all_poses.pose_model import PoseModel
from hoarfrost.model.all_poses.slice_bank import Statistics
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadratic import Quadratic
from hoarfrost.model.quadrature import PosePrior, make_orientation_quadrature, make_shift_quadrature, sampled_r_max
from hoarfrost.model.slices.operator import SliceOperator
from hoarfrost.symmetry.point_group import PointGroup

# Voxels by which the map's box exceeds 2 r_max, so that the grid does not blur its support.
VOLUME_MARGIN = 6
KERNEL_WIDTH = 3


def box_of(r_max: float) -> int:
    """Voxels a side of the map for a band limit: 2 ⌊r_max⌋ and a margin."""
    return 2 * math.floor(r_max) + VOLUME_MARGIN


class BandModel:
    """The likelihood of packed images of `image_box` pixels up to r_max, as a function of a small real volume.

    The volume (box, box, box) spans the same length as the images; box = 2 ⌊r_max⌋ + 6. It is to have the symmetry of
    `group`, over which gradients and the quadratic's terms are averaged. Where the group's rotations only permute the
    axes, poses that see the volume alike are summed over once. Otherwise `rotation` (3, 3) turns the whole quadrature
    of orientations, so that no direction of the map is special. The particle's `diameter`, as a share of the box, says
    how fine orientations are. With a `quadrature_r_max` the quadratures are those of that, lower, band limit.
    """

    def __init__(
        self,
        image_box: int,
        r_max: float,
        poses: PosePrior,
        rotation: Tensor,
        *,
        kernel_width: int = KERNEL_WIDTH,
        group: PointGroup | None = None,
        diameter: float = 1.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        quadrature_r_max: float | None = None,
    ) -> None:
        self.r_max = r_max
        self.group = group or PointGroup()
        self.device = torch.device(device)
        self.dtype = dtype
        self.box = box_of(r_max)
        self.disc = FourierDisc(image_box, r_max)
        fine_to = r_max if quadrature_r_max is None else quadrature_r_max
        self.is_coarse: bool = fine_to < r_max
        orientations = make_orientation_quadrature(sampled_r_max(fine_to, diameter))
        if self.group.order > 1 and self.group.permutes_axes:
            orientations = orientations.unit_of(self.group.rotations)
        else:
            orientations = orientations.rotated(rotation)
        shifts = make_shift_quadrature(fine_to, image_box, poses.shift_sigma_px, poses.shift_extent_px)
        self.poses = PoseModel(self.disc, orientations, shifts, device=device, dtype=dtype)
        self.operator = SliceOperator(
            self.disc,
            self.box,
            orientations.base_rotations,
            kernel_width=kernel_width,
            group=self.group,
            device=device,
            dtype=dtype,
        )

    def support(self, diameter: float) -> Tensor:
        """A ball of ones of `diameter` as a fraction of the box: real (box, box, box)."""
        inside = radius_grid(self.box, 3) <= diameter * self.box / 2
        return inside.to(device=self.device, dtype=self.dtype)

    def posterior(self, volume: Tensor, images: WhitenedImages) -> Posterior:
        """Sum over all poses of each image, given the volume (box, box, box)."""
        return marginalise(images, self.operator.slices(volume), self.poses)

    def mixture(self, volumes: Tensor, images: WhitenedImages, log_shares: Tensor) -> MixturePosterior:
        """Sum over classes and poses of each image, given volumes (C, box, box, box): see `model.all_poses.mixture`."""
        slices = [self.operator.slices(volume) for volume in volumes]
        return marginalise_mixture(images, slices, self.poses, log_shares)

    def mixture_with_statistics(
        self, volumes: Tensor, images: WhitenedImages, log_shares: Tensor, log_none: Tensor | None = None
    ) -> tuple[MixturePosterior, list[Statistics]]:
        """The same, and the statistics of each class; `log_none` is as in `model.all_poses.mixture`."""
        slices = [self.operator.slices(volume) for volume in volumes]
        return mixture_with_statistics(images, slices, self.poses, log_shares, log_none)

    def nll(self, volume: Tensor, images: WhitenedImages) -> Tensor:
        """Mean over images of −log p(Ĩ | V), differentiable in the volume."""
        slices: Tensor = _Slices.apply(volume, self.operator)  # type: ignore[no-untyped-call]
        return mean_nll(slices, images, self.poses)

    def quadratic(self, statistics: Statistics, n_images: float) -> Quadratic:
        """b (box,)³ and kernel of T (2 box,)³ per image, where Σ γ ‖…‖² = const + n (Vᵀ T V − 2 bᵀ V)."""
        return Quadratic(*self.operator.adjoint_and_kernel(statistics.numerator, statistics.weight)) / n_images


class _Slices(torch.autograd.Function):
    """P V with the exact adjoint as its gradient."""

    @staticmethod
    def forward(ctx: Any, volume: Tensor, operator: SliceOperator) -> Tensor:
        ctx.operator = operator
        return operator.slices(volume)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return ctx.operator.adjoint(grad_outputs[0].contiguous()), None
