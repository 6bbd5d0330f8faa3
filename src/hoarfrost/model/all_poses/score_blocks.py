"""Scores of a tile of images under all poses, a block of base orientations at a time, by two matrix products each.

A row is one of the symmetries · shifts under which an image is compared with slices, a column a base orientation.
"""

import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from hoarfrost.model.all_poses.plane_harmonics import HALF_OF_SYMMETRIES
from hoarfrost.model.all_poses.slice_bank import SliceBank
from hoarfrost.model.images import WhitenedImages


class ScoreBlocks:
    """Of b images: `rows` of each, and the coordinates `even`, `odd` and `power` of images that slices are met with.

    Scores lie in the bank's memory, and last until those of its next tile.
    """

    def __init__(self, images: WhitenedImages, bank: SliceBank) -> None:
        poses = bank.poses
        self.b, self.n_shifts = len(images), len(poses.shift_log_weights)
        self._bank, self._basis, self._kernels = bank, poses.harmonics, poses.kernels
        self.even, odd = poses.even_and_odd(images)
        self.power = poses.power(images)
        # u of all images and shifts, then w.
        self.odd = torch.cat(odd.chunk(2, dim=1))
        if self.n_shifts == 1:
            # Rows and those of the power term are the same, and one product gives the sum of both.
            parts = (torch.split(part, self._basis.sizes, dim=1) for part in (self.even, self.power))
            self.even = torch.cat([part for of_kind in zip(*parts, strict=True) for part in of_kind], dim=1)
        self.rows = len(HALF_OF_SYMMETRIES) * self.n_shifts
        self._scores = bank.scratch.take("scores", (2 * self.b * self.rows * len(bank.joint),), bank.joint)

    def scores(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Of orientations from `first` to before `last`: products (2, b, rows, width) and a bias for `exponentiate`."""
        b, pairs, width, bank = self.b, self.b * self.n_shifts, last - first, self._bank
        products = self.products(pairs, width)
        even, odd = products
        bias = even.new_zeros(1, 1, width)
        if self.n_shifts > 1:
            power = even.new_empty(len(self._basis.sizes), b, width)
        for c, (own, columns, of_power) in enumerate(self.kinds()):
            torch.mm(self.even[:, own], bank.joint[first:last, columns].T, out=even[c])
            if self.n_shifts > 1:
                torch.mm(self.power[:, own], bank.joint[first:last, of_power].T, out=power[c])
        for half, of_slices in enumerate(bank.odd[first:last].chunk(2, dim=1)):
            torch.mm(self.odd, of_slices.T, out=odd[2 * half : 2 * half + 2].view(2 * pairs, width))
        if self.n_shifts > 1:
            bias = torch.einsum("cg,cbk->bgk", self._basis.characters, power).contiguous()
        scores = self._scores[2 * b * self.rows * first : 2 * b * self.rows * last].view(2, b, self.rows, width)
        self._kernels.scores_of_products(products, self._basis, scores.view(2, b, -1, self.n_shifts, width))
        return scores, bias

    def kinds(self) -> Iterator[tuple[slice, slice, slice]]:
        """Of each kind, the columns of the images, and those of `SliceBank.joint` for them, and for the power term."""
        first = 0
        for size, (real, power) in zip(self._basis.sizes, self._basis.joint_slices(), strict=True):
            if self.n_shifts == 1:
                both = slice(real.start, power.stop)
                yield both, both, both
            else:
                yield slice(first, first + size), real, power
            first += size

    def products(self, pairs: int, width: int) -> Tensor:
        """Room for the products of a block, (2, 4, pairs, width), that a core uses again and again."""
        name = f"products of {threading.current_thread().name}"
        return self._bank.scratch.take(name, (2, 4, pairs, width), self._bank.joint)
