"""The likelihoods of a tile of images over all poses, and the statistics that they weigh, block by block.

A block of base orientations is worked on by one core, in whose cache it stays from the matrix products that score it to
its likelihoods. Blocks write to different base orientations, so no two cores ever wait for each other; where blocks
begin does not depend on the number of cores, so the results do not either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from hoarfrost.model.score_kernel import LOWEST_EXPONENT, BlockSums, exponentiate
from hoarfrost.model.slice_bank import SliceBank, StatisticSums
from hoarfrost.model.workers import each

if TYPE_CHECKING:
    from hoarfrost.model.likelihood import PoseModel, WhitenedImages

# A core's cache of 2 MB holds half a million. Measured at r_max 6 to 10: more or fewer by a half make no difference.
SCORES_PER_BLOCK = 700_000
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
        self._images, self._poses, self._bank = images, poses, bank
        self._b, self._n_shifts = len(images), len(poses.shifts.shifts_px)
        size, width = bank.size, bank.width
        self._real, self._imaginary = (pad(part, (0, width - size)) for part in poses.orient_data(images))
        self._power = pad(poses.orient_power(images), (0, width - size))
        self._power[:, size] = 1
        # With one shift, rows and those of the power term are the same, and one product gives the sum of both.
        self._joint = torch.cat([self._real, self._power], dim=1) if self._n_shifts == 1 else None
        self._rows = len(self._real) // self._b
        n_base = len(bank.joint)
        n_scores = 2 * self._b * self._rows * n_base
        self._scores = bank.scratch.take("scores", (n_scores,), bank.joint)
        n_blocks = BLOCKS_MULTIPLE * math.ceil(n_scores / SCORES_PER_BLOCK / BLOCKS_MULTIPLE)
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
        first, last = edges
        rows, width, size = self._b * self._rows, last - first, self._bank.width
        products = self._scores[2 * rows * first : 2 * rows * last].view(2, rows, width)
        joint = self._bank.joint[first:last].T
        if self._joint is not None:
            torch.mm(self._joint, joint, out=products[0])
            bias = products.new_zeros(1, 1, width)
        else:
            torch.mm(self._real, joint[:size], out=products[0])
            bias = torch.mm(self._power, joint[size:]).view(self._b, -1, width)
        torch.mm(self._imaginary, self._bank.imaginary[first:last].T, out=products[1])
        products = products.view(2, self._b, self._rows, width)
        sums = exponentiate(products, bias, self._poses.shift_log_weights)
        return _Block(first, last, products[0], products[1], bias, sums)

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
            of_block = share[:, number, None]
            live = ~(of_block * block.sums.row_sums <= least)  # what is not a number counts as live
            scale = of_block.expand(-1, self._rows)
            joint, imaginary = sums.joint[:, block.first : block.last], sums.imaginary[:, block.first : block.last]
            # Half a turn conjugates z, so imaginary parts take the difference of plain and turned.
            _add(imaginary, block.difference, self._imaginary, scale, live, begun=sums.begun)
            if self._joint is not None:
                _add(joint, block.both, self._joint, scale, live, begun=sums.begun)
                return
            size = self._bank.width
            _add(joint[:size], block.both, self._real, scale, live, begun=sums.begun)
            live = live.view(self._b, -1, self._n_shifts).any(dim=2)
            scale = scale[:, :: self._n_shifts]
            _add(joint[size:], block.over_shifts, self._power, scale, live, begun=sums.begun)

        each(add, list(enumerate(self._blocks)), share.device)
        sums.begun = True


def _add(total: Tensor, likelihoods: Tensor, values: Tensor, scale: Tensor, live: Tensor, *, begun: bool) -> None:
    """Add Σ likelihood · scale · value over live rows: (P, width) from (b, rows, width), (b · rows, P), (b, rows)."""
    likelihoods, scale, live = likelihoods.flatten(0, 1), scale.reshape(-1), live.flatten()
    if not live.all():
        chosen = live.nonzero().squeeze(1)
        likelihoods, values, scale = likelihoods[chosen], values[chosen], scale[chosen]
    if begun:
        total.addmm_(values.T * scale, likelihoods)
    else:
        torch.mm(values.T * scale, likelihoods, out=total)
