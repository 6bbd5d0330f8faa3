"""The marginal likelihood of images over a quadrature of poses, streamed in tiles, with its exact gradient.

With y = Ĩ/σ and c = C/σ, both times √weight so that sums over the half disc need no further weight,

    log p_ij = −‖y_i‖² + 2 Re⟨z_ij , P_j V⟩ − ⟨c_i² , |P_j V|²⟩ + log w_j + const,     z_ij = c_i S_t* y_i

The products are real matrix products of (images · shifts) × (base orientations). The symmetries of the pixel lattice
stand in for seven orientations in eight: a half turn only conjugates the slice, so that the products of the real parts
and of the imaginary parts, added, give the score of an orientation, and subtracted that of the one half a turn away;
and those under a quarter turn and a flip are sums of the same few products (`plane_harmonics`).
The posterior γ_ij = p_ij w_j / Σ gives the two statistics that every method needs, summed over images and symmetries,

    numerator_j = Σ_i γ_ij z_ij      weight_j = Σ_i γ_ij c_i²      ∂(−Σ log p)/∂(P_j V) = −2 (numerator − weight P_j V)
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hoarfrost.model.all_poses.plane_harmonics import HALF_OF_SYMMETRIES
from hoarfrost.model.all_poses.pose_model import PoseModel
from hoarfrost.model.all_poses.score_tile import ScoreTile
from hoarfrost.model.all_poses.slice_bank import SliceBank, Statistics, StatisticSums
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import LikelyPoses

# Scores of all images of a tile are in memory at once, 64 MB of them.
SCORES_PER_TILE = 1 << 24
# Rows (images · symmetries · shifts) beyond which matrix products get no faster.
ROWS_PER_TILE = 800


@dataclass(frozen=True)
class Posterior:
    """What the sum over poses leaves of b images.

    `log_evidence` (b,) float64, log p(Ĩ_i | V); `ess` (b,), effective number of poses 1/Σγ².
    """

    log_evidence: Tensor
    ess: Tensor


def marginalise(images: WhitenedImages, slices: Tensor, poses: PoseModel) -> Posterior:
    """Sum the likelihood of each image over all poses, given slices (n_base, K) at the base orientations."""
    return _sweep(images, SliceBank(slices, poses), lambda tile: None)


def marginalise_with_statistics(
    images: WhitenedImages, slices: Tensor, poses: PoseModel
) -> tuple[Posterior, Statistics]:
    """The same, and the statistics summed over the images."""
    bank = SliceBank(slices, poses)
    sums = StatisticSums(bank)
    posterior = _sweep(images, bank, lambda tile: tile.accumulate(sums))
    return posterior, sums.result()


def _sweep(images: WhitenedImages, bank: SliceBank, visit: Callable[[ScoreTile], None]) -> Posterior:
    columns = []
    for part in tiles_of(images, len(bank.joint), bank.poses):
        tile = ScoreTile(images[part], bank)
        columns.append((tile.log_evidence(), tile.ess()))
        visit(tile)
    return Posterior(*(torch.cat(column) for column in zip(*columns, strict=True)))


def likely_poses(images: WhitenedImages, slices: Tensor, poses: PoseModel, least_share: float) -> LikelyPoses:
    """All nodes that hold more than `least_share` of an image's posterior, and its best one in any case."""
    found = []
    bank = SliceBank(slices, poses)
    for part in tiles_of(images, len(slices), poses):
        likely = ScoreTile(images[part], bank).likely(least_share)
        found.append(dataclasses.replace(likely, image=likely.image + part.start))
    return LikelyPoses.cat(found)


def tiles_of(images: WhitenedImages, n_base: int, poses: PoseModel) -> Iterator[slice]:
    """Parts of the images whose likelihoods over all poses are in memory at once."""
    rows_per_image = len(HALF_OF_SYMMETRIES) * len(poses.shifts.shifts_px)
    rows = min(ROWS_PER_TILE, SCORES_PER_TILE // (2 * n_base))
    step = min(len(images), max(1, rows // rows_per_image))
    for start in range(0, len(images), step):
        yield slice(start, start + step)


class _MeanNLL(torch.autograd.Function):
    """Mean negative log-likelihood of a batch as a function of the slices, with the hand-written gradient."""

    @staticmethod
    def forward(ctx: Any, slices: Tensor, images: WhitenedImages, poses: PoseModel) -> Tensor:
        posterior, statistics = marginalise_with_statistics(images, slices, poses)
        ctx.save_for_backward(statistics.numerator - statistics.weight * slices)
        ctx.n_images = len(images)
        return -posterior.log_evidence.mean().to(slices.real.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (residual,) = ctx.saved_tensors
        return residual * (-2 / ctx.n_images * grad_outputs[0]), None, None


def mean_nll(slices: Tensor, images: WhitenedImages, poses: PoseModel) -> Tensor:
    """Mean over images of −log p(Ĩ | V), differentiable in the complex slices (n_base, K): a real scalar."""
    result: Tensor = _MeanNLL.apply(slices, images, poses)  # type: ignore[no-untyped-call]
    return result
