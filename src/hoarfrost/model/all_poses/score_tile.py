"""The likelihoods of a tile of images over all poses, and the statistics that they weigh, block by block.

A block of base orientations is worked on by one core, in whose cache it stays from the matrix products that score it to
its likelihoods. Blocks write to different base orientations, so no two cores ever wait for each other; where blocks
begin does not depend on the number of cores, so the results do not either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.model.all_poses.harmonic_kernel import products_of_likelihoods
from hoarfrost.model.all_poses.pose_model import PoseModel
from hoarfrost.model.all_poses.score_blocks import ScoreBlocks
from hoarfrost.model.all_poses.score_kernel import LOWEST_EXPONENT, BlockSums, exponentiate
from hoarfrost.model.all_poses.slice_bank import SliceBank, StatisticSums
from hoarfrost.model.images import WhitenedImages
from hoarfrost.parallel.threads import each

# Measured at r_max 6 to 10: half as many take up to a tenth longer, a quarter of them half as long again.
SCORES_PER_BLOCK = 1_400_000
SMALLEST_WIDTH = 64
# So that two or four cores have equally many.
BLOCKS_MULTIPLE = 4
# Poses outside the set that holds all but this share of the posterior change a gradient by no more than it.
DROPPED_MASS = 1e-6


@dataclass(frozen=True)
class LikelyPoses:
    """Nodes of the quadrature that hold much of the posterior of b images, m in all, in no order.

    `image` (m,) numbers the images from 0; `node` and `shift` (m,) as in `Posterior`; `probability` (m,).
    """

    image: Tensor
    node: Tensor
    shift: Tensor
    probability: Tensor


@dataclass(frozen=True)
class _Block:
    """Likelihoods of base orientations `first` to `last`: plain + turned and plain − turned, (b, rows, width) each.

    `over_shifts` (b, symmetries, width) is the first of them summed over shifts, where there are several.
    """

    first: int
    last: int
    both: Tensor
    difference: Tensor
    over_shifts: Tensor
    sums: BlockSums


class ScoreTile:
    """The likelihoods of b images over all poses, as exp(score − the image's peak of the block).

    A row is one of the symmetries · shifts under which an image is compared with slices. `_peak` and `_sum`
    (b, blocks) are an image's highest score in a block and the sum of its likelihoods there.
    A tile lasts until the next of its bank, whose likelihoods are written over its own.
    """

    def __init__(self, images: WhitenedImages, poses: PoseModel, bank: SliceBank) -> None:
        self._images, self._poses, self._basis = images, poses, bank.basis
        self._scores = ScoreBlocks(images, poses, bank)
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
        sums = exponentiate(scores, bias, self._poses.shift_log_weights)
        return _Block(*edges, scores[0], scores[1], bias, sums)

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
            both, difference = block.both[mine, row], block.difference[mine, row]
            place = torch.cat([both + difference, both - difference], dim=1).argmax(dim=1)
            width = both.shape[1]
            node[mine] = self._poses.node(place // width, row // self._n_shifts, block.first + place % width)
            shift[mine] = row % self._n_shifts
        return node, shift, 1 / self._total

    def likely(self, least_share: float) -> LikelyPoses:
        """All nodes above `least_share` of the posterior, and each image's best."""
        node, shift, probability = self.best()
        found = [(torch.arange(self._b, device=node.device), node, shift, probability)]
        share = self._factor / self._total[:, None]
        for block, of_block in zip(self._blocks, share.unbind(1), strict=True):
            image, row = (of_block[:, None] * block.sums.row_sums > least_share).nonzero().unbind(1)
            both, difference = block.both[image, row], block.difference[image, row]
            probability = torch.stack([both + difference, both - difference]) * (of_block[image, None] / 2)
            turned, of_row, column = (probability > least_share).nonzero().unbind(1)
            node = self._poses.node(turned, row[of_row] // self._n_shifts, block.first + column)
            probability = probability[turned, of_row, column]
            found.append((image[of_row], node, row[of_row] % self._n_shifts, probability))
        return LikelyPoses(*(torch.cat(column) for column in zip(*found, strict=True)))

    def accumulate(self, sums: StatisticSums, weight: Tensor | None = None) -> None:
        """Add the statistics, leaving out the rows that hold none of an image's posterior mass.

        An image counts `weight` (b,), or once.
        """
        # Normalise the few numbers of the images, not the many of the poses.
        share = self._factor / self._total[:, None]
        if weight is not None:
            share = share * weight.to(share)[:, None]
        least = DROPPED_MASS / (len(self._blocks) * self._rows)

        def add(numbered: tuple[int, _Block]) -> None:
            number, block = numbered
            of_block, width = share[:, number].contiguous(), block.last - block.first
            live = ~(of_block[:, None] * block.sums.row_sums <= least)  # what is not a number counts as live
            live = live.view(self._b, -1, self._n_shifts).any(dim=1)
            chosen = live.flatten().nonzero().squeeze(1)
            even, odd = self._scores.products(len(chosen), width)
            shape = self._b, -1, self._n_shifts, width
            products_of_likelihoods(
                block.both.view(shape), block.difference.view(shape), of_block, chosen, self._basis, even, odd
            )
            own_even, own_odd = self._scores.even, self._scores.odd
            if not live.all():
                own_even, own_odd = own_even[chosen], own_odd.view(2, -1, own_odd.shape[1])[:, chosen].flatten(0, 1)
            joint, odd_sums = sums.joint[:, block.first : block.last], sums.odd[:, block.first : block.last]
            for half, of_slices in enumerate(odd_sums.chunk(2)):
                _add(of_slices, own_odd, odd[2 * half : 2 * half + 2].flatten(0, 1), begun=sums.begun)
            for c, (own, rows, _) in enumerate(self._scores.kinds()):
                _add(joint[rows], own_even[:, own], even[c], begun=sums.begun)
            if self._n_shifts > 1:
                over_shifts = block.over_shifts * of_block[:, None, None]
                power = torch.einsum("cg,bgk->cbk", self._basis.characters, over_shifts)
                for c, (own, _, rows) in enumerate(self._scores.kinds()):
                    _add(joint[rows], self._scores.power[:, own], power[c], begun=sums.begun)

        each(add, list(enumerate(self._blocks)), share.device)
        sums.begun = True


def _add(total: Tensor, values: Tensor, likelihoods: Tensor, *, begun: bool) -> None:
    """Add Σ value · likelihood over rows: (P, width) from (m, P) and (m, width)."""
    if begun:
        total.addmm_(values.T, likelihoods)
    else:
        torch.mm(values.T, likelihoods, out=total)
