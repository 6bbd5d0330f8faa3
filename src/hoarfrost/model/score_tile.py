"""The likelihoods of some images over all poses, worked out in blocks that stay in the cache of one core.

`docs/speed.md` says what each arrangement in here was measured to bring.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from hoarfrost.model.workers import each

if TYPE_CHECKING:
    from hoarfrost.model.likelihood import PoseModel, WhitenedImages

# A block's scores, 1 MB of them, fit into the cache of a core with the images' and the slices' numbers beside them.
SCORES_PER_BLOCK = 1 << 18
# Rows of scores in a block, as near as whole images come to it: matrix products of this shape are the fastest.
ROWS_PER_BLOCK = 400
SMALLEST_WIDTH = 64
# exp() of anything lower is lost in a sum of 10⁷ terms. It must not be let go on: denormal numbers make exp and matrix
# products 5 to 30 times slower, and even the square of this is none.
LOWEST_EXPONENT = -40.0
# Sums of 10⁷ exponentials of this and of their squares are in the range of single precision.
HIGHEST_EXPONENT = 30.0


class SliceBank:
    """Slices of all base orientations apart: real and imaginary parts and |P_j V|², (n_base, K) each."""

    def __init__(self, slices: Tensor, poses: PoseModel) -> None:
        n_base, size = slices.shape
        memory = poses.memory("bank", 3 * n_base * size).view(3, n_base, size)
        self.real, self.imaginary, self.power = memory
        width = math.ceil(n_base / 64)

        def take(first: int) -> None:
            part = slice(first, first + width)
            self.real[part], self.imaginary[part] = slices[part].real, slices[part].imag
            torch.square(self.real[part], out=self.power[part]).addcmul_(self.imaginary[part], self.imaginary[part])

        each(take, range(0, n_base, width), slices.device)


class _Block(NamedTuple):
    """The scores of the images from `first_image` to `last_image` at the base orientations from `first` to `last`.

    `values` is (2, b, rows, width), a row being a symmetry and a shift: while they are scores, of an orientation and of
    that half a turn away; then the sum of the two's likelihoods and their difference, as the statistics take them.
    """

    first: int
    last: int
    first_image: int
    last_image: int
    values: Tensor


class _Summary(NamedTuple):
    """Of a block's likelihoods exp(score − reference).

    `reference` and `peak`, the highest score, (b,); `sums` (b, rows); `squares` (b,), the sum of their squares.
    """

    reference: Tensor
    peak: Tensor
    sums: Tensor
    squares: Tensor


class ScoreTile:
    """The likelihoods of b images over all poses; its memory is the next tile's too."""

    def __init__(self, images: WhitenedImages, bank: SliceBank, poses: PoseModel) -> None:
        self._images, self._bank, self._poses = images, bank, poses
        self._n_shifts = len(poses.shifts.shifts_px)
        self._real, self._imaginary = poses.orient_data(images)
        self._ctf_power = poses.orient_power(images)
        self._n_symmetries = len(self._ctf_power) // len(images)
        self._rows = self._n_symmetries * self._n_shifts
        self._doubled = [2 * self._real, 2 * self._imaginary]
        self._sampled = self._sample_peaks()
        self._columns = self._divide()
        blocks = [block for column in self._columns for block in column]
        summaries = iter(each(self._fill, blocks, bank.real.device))
        by_column = [[next(summaries) for _ in column] for column in self._columns]
        # (b, …, columns)
        self._reference, self._peak, self._sums, self._squares = (
            torch.stack([torch.cat(parts) for parts in of_field], dim=-1)
            for of_field in zip(*([*zip(*column, strict=True)] for column in by_column), strict=True)
        )
        self._highest = self._reference.amax(dim=1)
        self._factor = _exp(self._reference - self._highest[:, None])
        self._total = (self._factor * self._sums.sum(dim=1)).sum(dim=1)

    def _divide(self) -> list[list[_Block]]:
        """Blocks, those of the same base orientations together."""
        b, n_base = len(self._images), len(self._bank.real)
        step = min(b, max(1, round(ROWS_PER_BLOCK / self._rows)))
        step = math.ceil(b / math.ceil(b / step))
        n_columns = math.ceil(2 * step * self._rows * n_base / SCORES_PER_BLOCK)
        width = math.ceil(n_base / n_columns / SMALLEST_WIDTH) * SMALLEST_WIDTH
        memory = self._poses.memory("scores", 2 * b * self._rows * n_base)
        columns = []
        used = 0
        for first in range(0, n_base, width):
            last = min(first + width, n_base)
            column = []
            for first_image in range(0, b, step):
                last_image = min(first_image + step, b)
                shape = (2, last_image - first_image, self._rows, last - first)
                values = memory[used : used + math.prod(shape)].view(shape)
                used += math.prod(shape)
                column.append(_Block(first, last, first_image, last_image, values))
            columns.append(column)
        return columns

    def _sample_peaks(self) -> Tensor:
        """The highest scores (b,) at a few orientations, taken from all scores so that exponentials are in range."""
        n_base = len(self._bank.real)
        sample = torch.arange(0, n_base, math.ceil(n_base / SMALLEST_WIDTH), device=self._bank.real.device)
        few = [part[sample] for part in (self._bank.real, self._bank.imaginary, self._bank.power)]
        shape = (2, len(self._images), self._rows, len(sample))
        scores = self._poses.memory("scores", math.prod(shape)).view(shape)
        nothing = torch.zeros_like(self._ctf_power[: shape[1], 0])
        self._score(scores, slice(0, shape[1]), few, self._poses.base_log_weights[sample], nothing)
        return scores.amax(dim=3).amax(dim=(0, 2))

    def _fill(self, block: _Block) -> _Summary:
        """Fill a block with its likelihoods."""
        part, images = slice(block.first, block.last), slice(block.first_image, block.last_image)
        slices = [self._bank.real[part], self._bank.imaginary[part], self._bank.power[part]]
        values, reference = block.values, self._sampled[images]
        self._score(values, images, slices, self._poses.base_log_weights[part], reference)
        by_image = values.view(2, len(reference), -1)
        peak = by_image.amax(dim=2).amax(dim=0)
        rise = torch.where(peak > HIGHEST_EXPONENT, peak, 0)
        if bool((rise > 0).any()):
            by_image.sub_(rise[:, None])
        values.clamp_(min=LOWEST_EXPONENT).exp_()
        _sum_and_difference(values)
        squares = torch.linalg.vector_norm(by_image, dim=2).square().sum(dim=0) / 2
        return _Summary(reference + rise, reference + peak, values[0].sum(dim=2), squares)

    def _score(
        self, scores: Tensor, images: slice, slices: list[Tensor], log_weights: Tensor, reference: Tensor
    ) -> None:
        """Fill a block with log p_ij, up to a constant of the image, less the reference (b,)."""
        real, imaginary, power = slices
        ctf_power = self._ctf_power[_times(images, self._n_symmetries)]
        rows = _times(images, self._rows)
        products = scores.view(2, -1, len(log_weights))
        start = reference.repeat_interleave(self._n_symmetries)[:, None]
        if self._n_shifts == 1:
            torch.sub(log_weights, start, out=products[0]).addmm_(ctf_power, power.T, alpha=-1)
        else:
            bias = (log_weights - start).addmm_(ctf_power, power.T, alpha=-1)
            by_shift = products[0].view(-1, self._n_shifts, len(log_weights))
            torch.add(bias[:, None], self._poses.shift_log_weights[:, None], out=by_shift)
        products[0].addmm_(self._doubled[0][rows], real.T)
        torch.mm(self._doubled[1][rows], imaginary.T, out=products[1])
        _sum_and_difference(products)

    def log_evidence(self) -> Tensor:
        """log p(Ĩ_i | V): (b,) float64."""
        return self._images.log_constant + self._highest.to(torch.float64) + self._total.to(torch.float64).log()

    def ess(self) -> Tensor:
        """1 / Σ γ², (b,)."""
        return self._total.square() / (self._factor.square() * self._squares).sum(dim=1)

    def best(self) -> tuple[Tensor, Tensor, Tensor]:
        """The most probable node, its shift and its probability, (b,) each."""
        best_column = self._peak.argmax(dim=1)
        node, shift = torch.empty_like(best_column), torch.empty_like(best_column)
        for number in sorted(set(best_column.tolist())):
            for block in self._columns[number]:
                mine = (best_column[block.first_image : block.last_image] == number).nonzero().squeeze(1)
                if len(mine) > 0:
                    width = block.last - block.first
                    place = _apart(block.values[:, mine]).transpose(0, 1).reshape(len(mine), -1).argmax(dim=1)
                    row, column = place // width, place % width
                    found = block.first_image + mine
                    node[found] = self._node(row // self._rows, row % self._rows, block.first + column)
                    shift[found] = row % self._n_shifts
        return node, shift, (self._peak.amax(dim=1) - self._highest).exp() / self._total

    def likely(self, least_share: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Image, node, shift and probability (m,) of nodes above `least_share` of a posterior, and of each best."""
        node, shift, probability = self.best()
        found = [(torch.arange(len(node), device=node.device), node, shift, probability)]
        share = self._factor / self._total[:, None]
        enough = share[:, None] * self._sums > least_share
        for number, column in enumerate(self._columns):
            for block in column:
                of_image, row = enough[block.first_image : block.last_image, :, number].nonzero().unbind(1)
                image = block.first_image + of_image
                share_of_row = share[image, number]
                values = _apart(block.values[:, of_image, row]) * share_of_row[:, None]
                turned, of_row, place = (values > least_share).nonzero().unbind(1)
                node = self._node(turned, row[of_row], block.first + place)
                found.append((image[of_row], node, row[of_row] % self._n_shifts, values[turned, of_row, place]))
        image, node, shift, probability = (torch.cat(part) for part in zip(*found, strict=True))
        return image, node, shift, probability

    def _node(self, turned: Tensor, row: Tensor, base: Tensor) -> Tensor:
        return self._poses.node(turned, row // self._n_shifts, base)

    def accumulate(self, numerator: Tensor, weight: Tensor, *, anew: bool, dropped_mass: float) -> None:
        """Add Σ γ z and Σ γ c² (n_base, K), or write them `anew`.

        Rows of blocks that hold less than their part of `dropped_mass` of an image's posterior are left out.
        """
        share = self._factor / self._total[:, None]
        # What is not a number counts as live.
        live = ~(share[:, None] * self._sums <= dropped_mass / (self._rows * len(self._columns)))
        # Normalise the numbers of the images, fewer than those of the poses; for most blocks they are the same.
        share_of_sampled = _exp(self._sampled - self._highest) / self._total
        ranges = [slice(block.first_image, block.last_image) for block in self._columns[0]]
        usual = [self._factors(share_of_sampled[images], images) for images in ranges]
        risen = (self._reference > self._sampled[:, None]).any(dim=0).tolist()
        size = weight.shape[1]

        def add(number: int) -> None:
            column = self._columns[number]
            sums = weight.new_zeros(3, size, column[0].last - column[0].first)
            for block, images, factors in zip(column, ranges, usual, strict=True):
                rows = live[images, :, number].flatten().nonzero().squeeze(1)
                both, difference = block.values.flatten(1, 2)
                if 2 * len(rows) <= len(both):
                    both, difference = both[rows], difference[rows]
                    factors = self._factors_of_rows(share[images, number], images, rows)
                elif risen[number]:
                    factors = self._factors(share[images, number], images)
                sums[0].addmm_(factors[0], both)
                sums[1].addmm_(factors[1], difference)
                n_powers = factors[2].shape[1]
                if len(both) > n_powers:
                    both = both.view(n_powers, -1, both.shape[1]).sum(dim=1)
                sums[2].addmm_(factors[2], both)
            target = slice(column[0].first, column[0].last)
            real, imaginary, power = sums.transpose(1, 2)
            if anew:
                torch.complex(real, imaginary, out=numerator[target])
                weight[target] = power
            else:
                numerator[target] += torch.complex(real, imaginary)
                weight[target] += power

        each(add, range(len(self._columns)), numerator.device)

    def _factors(self, share: Tensor, images: slice) -> list[Tensor]:
        """Re z, Im z (K, b · rows) and c² (K, b · symmetries) of some images times their shares (b,)."""
        of_row = share.repeat_interleave(self._rows)[:, None]
        of_power = share.repeat_interleave(self._n_symmetries)[:, None]
        rows, power = _times(images, self._rows), self._ctf_power[_times(images, self._n_symmetries)]
        return [_turned(self._real[rows] * of_row), _turned(self._imaginary[rows] * of_row), _turned(power * of_power)]

    def _factors_of_rows(self, share: Tensor, images: slice, rows: Tensor) -> list[Tensor]:
        """The same, (K, m) each, of m of some images' rows."""
        of_row = share[rows // self._rows, None]
        rows = rows + images.start * self._rows
        parts = self._real[rows], self._imaginary[rows], self._ctf_power[rows // self._n_shifts]
        return [_turned(part * of_row) for part in parts]


def _turned(rows: Tensor) -> Tensor:
    """The transpose, for which matrix products with likelihoods are a sixth faster."""
    return rows.T.contiguous()


def _times(part: slice, count: int) -> slice:
    """A range of images as one of things of which each image has `count`."""
    return slice(part.start * count, part.stop * count)


def _sum_and_difference(pair: Tensor) -> None:
    """Turn the two halves of axis 0 of (2, …) into their sum and their difference, in place."""
    first, second = pair[0], pair[1]
    first.add_(second)
    torch.add(first, second, alpha=-2, out=second)


def _apart(pair: Tensor) -> Tensor:
    """The two of whose sum and difference (2, …) is made, which can come out a rounding error below zero."""
    return torch.stack([pair[0] + pair[1], pair[0] - pair[1]]) / 2


def _exp(exponent: Tensor) -> Tensor:
    """exp() of numbers up to zero, and zero instead of denormal numbers."""
    return torch.where(exponent > 2 * LOWEST_EXPONENT, exponent.exp(), 0)
