"""What sweeps over scores and coordinates of `plane_harmonics` have to offer: `cpu` and `torch` do them.

Slices become operands of matrix products; products of one kind of coordinates become scores, each a sum of four or two
of them; scores become likelihoods; sums of these become the statistics of slices.
"""

from typing import Protocol

from torch import Tensor

from hoarfrost.maths.compiled import is_compiled
from hoarfrost.model.all_poses import cpu
from hoarfrost.model.all_poses import torch as by_torch
from hoarfrost.model.all_poses.block_sums import BlockSums
from hoarfrost.model.all_poses.plane_harmonics import PlaneHarmonics


class ScoreKernels(Protocol):
    """A block has rows (image, symmetry, shift) and columns (base orientations)."""

    def arrange_slices(
        self, slices: Tensor, log_weights: Tensor, basis: PlaneHarmonics, joint: Tensor, odd: Tensor
    ) -> None:
        """From slices (n, K, 2) fill `joint` (n, 2E) and `odd` (n, 2 O) with their coordinates.

        `joint` has, for each kind, those of the real parts of 2 P_j V and then those of −|P_j V|², the last of the
        first kind being the log weight; `odd` has those of the imaginary parts of 2 P_j V.
        """

    def arrange_statistics(
        self, joint: Tensor, odd: Tensor, basis: PlaneHarmonics, numerator: Tensor, weight: Tensor
    ) -> None:
        """The way back: from sums `joint` (2E, n) and `odd` (2 O, n) fill `numerator` (n, K, 2) and `weight` (n, K)."""

    def scores_of_products(self, products: Tensor, basis: PlaneHarmonics, scores: Tensor) -> None:
        """Fill `scores` (2, b, 4, S, width): ⟨P_g e, x⟩ and ⟨P_g o, x⟩ under half of the symmetries g.

        `products` (2, 4, b · S, width): ⟨e_c, x_c⟩ of each kind; then ⟨u, u'⟩, ⟨w, u'⟩, ⟨u, w'⟩ and ⟨w, w'⟩.
        """

    def exponentiate(self, products: Tensor, bias: Tensor, shift_log_weights: Tensor) -> BlockSums:
        """Turn products (2, b, rows, width) into likelihoods in place: plain plus turned, and plain minus turned.

        `bias`, (b, rows / S, width) or (1, 1, width), and the log weights (S,) of the shifts are added to each score
        first. With several shifts, `bias` becomes the likelihoods plain plus turned summed over shifts.
        """

    def products_of_likelihoods(
        self, likelihoods: Tensor, scale: Tensor, chosen: Tensor, basis: PlaneHarmonics, products: Tensor
    ) -> None:
        """The transpose of `scores_of_products`, of likelihoods (2, b, 4, S, width) times `scale` (b,).

        Of the images and shifts `chosen` (m,) only, numbered i S + s. Fills `products` (2, 4, m, width).
        """


def kernels_for(like: Tensor) -> ScoreKernels:
    """The kernels for tensors like this."""
    return cpu if is_compiled(like) else by_torch
