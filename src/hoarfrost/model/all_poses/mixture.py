"""Several structures at once: the likelihood of images each of which shows one of C volumes.

    p(Ĩ_i | V_1 … V_C) = Σ_c π_c p(Ĩ_i | V_c)        r_ic = π_c p(Ĩ_i | V_c) / p(Ĩ_i | V_1 … V_C)

with π_c the shares of the classes and r_ic the class probabilities of an image. The statistics of class c are those of
`model.all_poses.marginal`, in which image i counts r_ic. Where an image may also show none of them, the evidence for
that is one more term of the sum that r_ic is divided by.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.model.all_poses.marginal import tiles_of
from hoarfrost.model.all_poses.pose_model import PoseModel
from hoarfrost.model.all_poses.score_tile import ScoreTile
from hoarfrost.model.all_poses.slice_bank import SliceBank, Statistics, StatisticSums
from hoarfrost.model.images import WhitenedImages

# No class gets less than this part of 1 / C, or it could never come back.
LEAST_OCCUPANCY = 0.1


def log_shares_of(shares: Tensor) -> Tensor:
    """log π of shares (C,) of the images, float64 on the CPU, none below a tenth of its fair part."""
    shares = shares.to("cpu", torch.float64)
    return shares.clamp(min=LEAST_OCCUPANCY / len(shares)).log().log_softmax(dim=0)


@dataclass(frozen=True)
class MixturePosterior:
    """What the sum over classes and poses leaves of b images.

    `log_evidence` (b,) float64; `probability` r (b, C) float64, which sum to 1 less the probability of none of the
    classes; `ess` (b,), effective number of classes × poses.
    """

    log_evidence: Tensor
    probability: Tensor
    ess: Tensor


def marginalise_mixture(
    images: WhitenedImages,
    slices: Sequence[Tensor],
    poses: PoseModel,
    log_shares: Tensor,
    log_none: Tensor | None = None,
) -> MixturePosterior:
    """Sum the likelihood of each image over classes and poses, given slices (n_base, K) of each class.

    `log_shares` (C,) is log π; `log_none` (b,) is the log of how probable it is to see the image where it shows none of
    the classes, over the probability that it shows one.
    """
    return _sweep(images, _banks(slices, poses), log_shares, log_none, lambda tiles, probability: None)


def mixture_with_statistics(
    images: WhitenedImages,
    slices: Sequence[Tensor],
    poses: PoseModel,
    log_shares: Tensor,
    log_none: Tensor | None = None,
) -> tuple[MixturePosterior, list[Statistics]]:
    """The same, and the statistics of each class."""
    banks = _banks(slices, poses)
    sums = [StatisticSums(bank) for bank in banks]

    def add(tiles: list[ScoreTile], probability: Tensor) -> None:
        for c, tile in enumerate(tiles):
            tile.accumulate(sums[c], None if len(tiles) == 1 and log_none is None else probability[:, c])

    posterior = _sweep(images, banks, log_shares, log_none, add)
    return posterior, [of_class.result() for of_class in sums]


def _banks(slices: Sequence[Tensor], poses: PoseModel) -> list[SliceBank]:
    return [SliceBank(of_class, poses, c) for c, of_class in enumerate(slices)]


def _sweep(
    images: WhitenedImages,
    banks: list[SliceBank],
    log_shares: Tensor,
    log_none: Tensor | None,
    visit: Callable[[list[ScoreTile], Tensor], None],
) -> MixturePosterior:
    log_shares = log_shares.to(images.data.device, torch.float64)
    columns = []
    for part in tiles_of(images, len(banks[0].joint), banks[0].poses):
        tiles = [ScoreTile(images[part], bank) for bank in banks]
        joint = torch.stack([tile.log_evidence() for tile in tiles], dim=1) + log_shares
        probability = joint.softmax(dim=1)
        squares = torch.stack([probability[:, c].square() / tile.ess() for c, tile in enumerate(tiles)]).sum(dim=0)
        if log_none is not None:
            probability = probability * (joint.logsumexp(dim=1) - log_none[part]).sigmoid()[:, None]
        columns.append((joint.logsumexp(dim=1), probability, 1 / squares))
        visit(tiles, probability)
    return MixturePosterior(*(torch.cat(column) for column in zip(*columns, strict=True)))
