"""The likelihoods of a tile of images over all poses, and the statistics that they weigh, block by block.

One core works on a block of base orientations, which stays in its cache from the matrix products to the likelihoods.
Blocks write to different base orientations, so no core waits for another. Where blocks begin does not depend on the
number of cores, so the results do not either.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.model.all_poses.block_sums import LOWEST_EXPONENT, BlockSums
from hoarfrost.model.all_poses.score_blocks import ScoreBlocks
from hoarfrost.model.all_poses.slice_bank import SliceBank, StatisticSums
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import LikelyPoses
from hoarfrost.parallel.threads import each

# A block of so many scores fits a core's cache, and is large enough for matrix products to be efficient.
SCORES_PER_BLOCK = 1_400_000
SMALLEST_WIDTH = 64
# The number of blocks is a multiple of this, so that two or four cores have equally many.
BLOCKS_MULTIPLE = 4
# Poses that together hold less than this share of the posterior are left out of the statistics.
DROPPED_MASS = 1e-6


@dataclass(frozen=True)
class _Block:
    """Likelihoods of base orientations `first` to `last`: plain + turned and plain − turned, (2, b, rows, width).

    `over_shifts` (b, symmetries, width) is the first of them summed over shifts, where there are several.
    """

    first: int
    last: int
    likelihoods: Tensor
    over_shifts: Tensor
    sums: BlockSums


class ScoreTile:
    """The likelihoods of b images over all poses, as exp(score − the image's peak of the block).

    A row is one of the symmetries · shifts under which an image is compared with slices. `_peak` and `_sum`
    (b, blocks) are an image's highest score in a block and the sum of its likelihoods there.
    A tile lasts until the next of its bank, whose likelihoods are written over its own.
    """

    def __init__(self, images: WhitenedImages, bank: SliceBank) -> None:
        self._images, self._poses = images, bank.poses
        self._scores = ScoreBlocks(images, bank)
        self._b, self._n_shifts, self._rows = len(images), self._scores.n_shifts, self._scores.rows
        n_base = len(bank.joint)
        n_blocks = BLOCKS_MULTIPLE * math.ceil(2 * self._b * self._rows * n_base / SCORES_PER_BLOCK / BLOCKS_MULTIPLE)
        width = max(SMALLEST_WIDTH, math.ceil(n_base / n_blocks))
        edges = [(first, min(first + width, n_base)) for first in range(0, n_base, width)]
        self._blocks = each(self._score, edges, bank.joint.device)
        self._peak = torch.stack([block.sums.peak for block in self._blocks], dim=1)
        self._sum = torch.stack([block.sums.row_sums.sum(dim=1) for block in self._blocks], dim=1)
        self._highest = self._peak.amax(dim=1)
        self._factor = (self._peak - self._highest[:, None]).clamp_(min=LOWEST_EXPONENT).exp_()
        self._total = (self._factor * self._sum).sum(dim=1)

    def _score(self, edges: tuple[int, int]) -> _Block:
        """Likelihoods of the base orientations from `first` to before `last`."""
        scores, bias = self._scores.scores(*edges)
        sums = self._poses.kernels.exponentiate(scores, bias, self._poses.shift_log_weights)
        return _Block(*edges, scores, bias, sums)

    def log_evidence(self) -> Tensor:
        """log p(Ĩ_i | V): (b,) float64."""
        return self._images.log_constant + self._highest.to(torch.float64) + self._total.to(torch.float64).log()

    def ess(self) -> Tensor:
        """1 / Σ γ², (b,)."""
        squares = torch.stack([block.sums.squares for block in self._blocks], dim=1)
        return self._total.square() / (self._factor.square() * squares).sum(dim=1)

    def best(self) -> tuple[Tensor, Tensor, Tensor]:
        """The most probable node, its shift and its probability, (b,) each."""
        of_block = self._peak.argmax(dim=1)
        node, shift = torch.empty_like(of_block), torch.empty_like(of_block)
        for number in sorted(set(of_block.tolist())):
            block = self._blocks[number]
            mine = (of_block == number).nonzero().squeeze(1)
            row = block.sums.row[mine]
            both, difference = block.likelihoods[:, mine, row]
            place = torch.cat([both + difference, both - difference], dim=1).argmax(dim=1)
            width = both.shape[1]
            node[mine] = self._poses.node(place // width, row // self._n_shifts, block.first + place % width)
            shift[mine] = row % self._n_shifts
        return node, shift, 1 / self._total

    def likely(self, least_share: float) -> LikelyPoses:
        """All nodes above `least_share` of the posterior, and each image's best."""
        node, shift, probability = self.best()
        found = [LikelyPoses(torch.arange(self._b, device=node.device), node, shift, probability)]
        share = self._factor / self._total[:, None]
        for block, of_block in zip(self._blocks, share.unbind(1), strict=True):
            image, row = (of_block[:, None] * block.sums.row_sums > least_share).nonzero().unbind(1)
            both, difference = block.likelihoods[:, image, row]
            probability = torch.stack([both + difference, both - difference]) * (of_block[image, None] / 2)
            turned, of_row, column = (probability > least_share).nonzero().unbind(1)
            node = self._poses.node(turned, row[of_row] // self._n_shifts, block.first + column)
            probability = probability[turned, of_row, column]
            found.append(LikelyPoses(image[of_row], node, row[of_row] % self._n_shifts, probability))
        return LikelyPoses.cat(found)

    def accumulate(self, sums: StatisticSums, weight: Tensor | None = None) -> None:
        """Add the statistics, leaving out the rows that hold none of an image's posterior mass.

        An image counts `weight` (b,), or once.
        """
        # Normalise the few numbers of the images, not the many of the poses.
        share = self._factor / self._total[:, None]
        if weight is not None:
            share = share * weight.to(share)[:, None]
        kernels, basis = self._poses.kernels, self._poses.harmonics
        least = DROPPED_MASS / (len(self._blocks) * self._rows)

        def add(numbered: tuple[int, _Block]) -> None:
            number, block = numbered
            of_block, width = share[:, number].contiguous(), block.last - block.first
            live = ~(of_block[:, None] * block.sums.row_sums <= least)  # what is not a number counts as live
            live = live.view(self._b, -1, self._n_shifts).any(dim=1)
            chosen = live.flatten().nonzero().squeeze(1)
            likelihoods = block.likelihoods.view(2, self._b, -1, self._n_shifts, width)
            products = self._scores.products(len(chosen), width)
            kernels.products_of_likelihoods(likelihoods, of_block, chosen, basis, products)
            even, odd = products
            own_even, own_odd = self._scores.even, self._scores.odd
            if not live.all():
                own_even, own_odd = own_even[chosen], own_odd.view(2, -1, own_odd.shape[1])[:, chosen].flatten(0, 1)
            joint, odd_sums = sums.joint[:, block.first : block.last], sums.odd[:, block.first : block.last]
            for half, of_slices in enumerate(odd_sums.chunk(2)):
                sums.add(of_slices, own_odd, odd[2 * half : 2 * half + 2].flatten(0, 1))
            for c, (own, rows, _) in enumerate(self._scores.kinds()):
                sums.add(joint[rows], own_even[:, own], even[c])
            if self._n_shifts > 1:
                over_shifts = block.over_shifts * of_block[:, None, None]
                power = torch.einsum("cg,bgk->cbk", basis.characters, over_shifts)
                for c, (own, _, rows) in enumerate(self._scores.kinds()):
                    sums.add(joint[rows], self._scores.power[:, own], power[c])

        each(add, list(enumerate(self._blocks)), share.device)
        sums.begin()
