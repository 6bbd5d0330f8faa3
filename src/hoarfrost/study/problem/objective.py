"""The objective of a study's data as a function of a map, with its gradient and its Hessian times a direction.

    f(V) = −(1/b) Σ_i log p(Ĩ_i | V) − (1/n) log p(V)            b images of a batch, n images in all

It is the objective of the runs' gradient methods (`reconstruction.starts.gradient.Objective`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.model.all_poses.marginal import marginalise, marginalise_with_statistics
from hoarfrost.model.all_poses.second_order import evidence_and_gradient, hessian_product, log_evidence
from hoarfrost.model.images import WhitenedImages
from hoarfrost.study.data import StudyData


@dataclass(frozen=True)
class ExactObjective:
    """f of the data's model, prior and number of images; maps are real (box, box, box) of the model's precision.

    In float32 value and gradient are the runs' own compiled sums, which leave out poses that hold less than 10⁻⁶ of the
    posterior. In float64 nothing is left out. Hessian products never leave anything out.
    """

    data: StudyData

    def value(self, volume: Tensor, images: WhitenedImages) -> float:
        """f, in nats per image."""
        slices, poses = self.data.band.operator.slices(volume), self.data.band.poses
        if self._is_double:
            found = log_evidence(images, slices, poses)
        else:
            found = marginalise(images, slices, poses).log_evidence
        return float(self._prior_part(volume) - found.mean())

    def value_and_gradient(self, volume: Tensor, images: WhitenedImages) -> tuple[float, Tensor]:
        """f and its gradient (box, box, box), at voxels that are 0, where the prior has a kink, that from above."""
        operator, poses = self.data.band.operator, self.data.band.poses
        slices = operator.slices(volume)
        if self._is_double:
            found, of_slices = evidence_and_gradient(images, slices, poses)
        else:
            posterior, statistics = marginalise_with_statistics(images, slices, poses)
            found, of_slices = posterior.log_evidence, -2 * (statistics.numerator - statistics.weight * slices)
        with torch.enable_grad():
            parameter = volume.detach().requires_grad_()
            prior = self._prior_part(parameter)
            (of_prior,) = torch.autograd.grad(prior, parameter)
        return float(prior.detach() - found.mean()), operator.adjoint(of_slices) / len(images) + of_prior

    def hessian_product(self, volume: Tensor, direction: Tensor, images: WhitenedImages) -> Tensor:
        """∇²f(V) times a direction (box, box, box): see `hoarfrost.model.all_poses.second_order`."""
        band, objective = self.data.band, self.data.objective
        slices, along = band.operator.slices(volume), band.operator.slices(direction)
        product = band.operator.adjoint(hessian_product(images, slices, along, band.poses)) / len(images)
        return product + objective.prior.curvature(volume) * direction / objective.n_images

    @property
    def _is_double(self) -> bool:
        return self.data.band.dtype == torch.float64

    def _prior_part(self, volume: Tensor) -> Tensor:
        return self.data.objective.prior.negative_log(volume) / self.data.objective.n_images
