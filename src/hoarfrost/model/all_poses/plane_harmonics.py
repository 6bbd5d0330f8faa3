"""The Fourier transform over the symmetries of the image plane, by which eight views of an image need fewer products.

An image is compared with each slice under the eight symmetries g of the pixel lattice (D4,
`maths.rotations.plane_symmetries`): ⟨P_g z, x⟩ with (P_g z)(k) = z(g k). As in any group these are sums of fewer
products (Serre 1977, Linear representations of finite groups, § 2.6). T is a quarter turn and F a flip. Real parts are
even under half a turn. They fall into four kinds c with T e_c = ±e_c and F e_c = ±e_c, a quarter of the coordinates
each,

    ⟨P_g e, x⟩ = Σ_c χ_c(g) ⟨e_c, x_c⟩

and imaginary parts, odd under it, are o = Σ_m u_m b_m + w_m T b_m with F b_m = b_m, so that T takes (u, w) to (−w, u)
and F to (u, −w), and four products of half of the coordinates, ⟨u, u'⟩, ⟨w, u'⟩, ⟨u, w'⟩ and ⟨w, w'⟩, give all.
That is 3 K multiplications for the eight in place of 8 K, and nothing is lost: coordinates are orthonormal.
"""

import math
from typing import NamedTuple, final

import torch
from torch import Tensor
from torch.nn.functional import pad

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rotations import plane_symmetries

# Of `plane_symmetries`: quarter turns 0 and 1, plain and flipped. The others are these, turned by 180° (2 further on).
HALF_OF_SYMMETRIES = [0, 1, 4, 5]
# χ_c(g) of each kind (rows) under those symmetries: 1, T, F and F T.
CHARACTERS = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64)
# ⟨P_g o, x⟩ under those symmetries (rows) from ⟨u, u'⟩, ⟨w, u'⟩, ⟨u, w'⟩ and ⟨w, w'⟩.
ODD_SIGNS = torch.tensor([[1, 0, 0, 1], [0, -1, 1, 0], [1, 0, 0, -1], [0, -1, -1, 0]], dtype=torch.float64)
TERMS = 4
# Matrix products like rows to begin at multiples of 32 bytes.
MULTIPLE = 8


class Terms(NamedTuple):
    """The rows of a matrix with four numbers at most in each: where they stand, (4, rows) int32, and what they are."""

    column: Tensor
    factor: Tensor

    @staticmethod
    def of(matrix: Tensor, dtype: torch.dtype) -> "Terms":
        """Those of a matrix (rows, columns)."""
        assert int((matrix != 0).sum(dim=1).max()) <= TERMS
        column = matrix.abs().topk(min(TERMS, matrix.shape[1]), dim=1).indices
        column, factor = (
            pad(part.T, (0, 0, 0, TERMS - column.shape[1])) for part in (column, torch.gather(matrix, 1, column))
        )
        return Terms(column.contiguous().to(torch.int32), factor.contiguous().to(dtype))


@final
class PlaneHarmonics:
    """Coordinates of coefficients packed as in `disc`: those of even parts, kind by kind, and those of odd parts.

    `even` (E, K) and `odd` (2 O, K), u and then w, have orthonormal rows, and rows of zeros that fill up each kind of
    `sizes` (4 of them, E in all) and `odd_size` O to multiples of eight; the last of the first kind is one. The
    imaginary part of DC, which images do not have, is left out.
    """

    def __init__(self, disc: FourierDisc, dtype: torch.dtype, device: torch.device | str) -> None:
        turned = [disc.permutation(g[:2, :2]) for g in plane_symmetries()[HALF_OF_SYMMETRIES]]
        eye = torch.eye(disc.size, dtype=torch.float64)
        # Of symmetry g, (P_g z)(k) is z at another place, and its imaginary part may change sign.
        even = torch.stack([eye[index] for index, _ in turned])
        odd = [eye[index] * (1 - 2 * conjugate.to(torch.float64))[:, None] for index, conjugate in turned]
        kinds = [_distinct(torch.einsum("g,gkl->kl", signs, even)) for signs in CHARACTERS]
        _, turn, flip, _ = odd
        symmetric = eye + flip
        symmetric[0] = 0  # DC
        flipped = _distinct(symmetric)
        u, w = _filled(flipped, 0), _filled(flipped @ turn.T, 0)
        blocks = [_filled(kind, 1 if c == 0 else 0) for c, kind in enumerate(kinds)]
        self.sizes = [len(block) for block in blocks]
        self.odd_size = len(u)
        every, odds = torch.cat(blocks), torch.cat([u, w])
        self.even, self.odd = every.to(device, dtype), odds.to(device, dtype)
        self.even_terms, self.odd_terms = Terms.of(every, dtype), Terms.of(odds, dtype)
        self.even_back, self.odd_back = Terms.of(every.T, dtype), Terms.of(odds.T, dtype)
        self.characters = CHARACTERS.to(device, dtype)
        self.odd_signs = ODD_SIGNS.to(device, dtype)

    @property
    def joint_size(self) -> int:
        """Columns of a row with two sets of even coordinates."""
        return 2 * sum(self.sizes)

    def joint_slices(self) -> list[tuple[slice, slice]]:
        """Where the two sets of each kind lie in such a row, one after the other."""
        found, first = [], 0
        for size in self.sizes:
            found.append((slice(first, first + size), slice(first + size, first + 2 * size)))
            first += 2 * size
        return found


def _distinct(rows: Tensor) -> Tensor:
    """Of the rows of a square matrix that are not zero, one of each set that have the same places, of length 1."""
    first = (rows != 0).to(torch.int8).argmax(dim=1)
    norms = rows.norm(dim=1)
    chosen = (norms > 0) & (first == torch.arange(len(rows)))
    distinct: Tensor = rows[chosen] / norms[chosen, None]
    return distinct


def _filled(rows: Tensor, more: int) -> Tensor:
    """The rows, and so many rows of zeros that there are a multiple of eight, `more` of zeros at least."""
    wanted = max(MULTIPLE, math.ceil((len(rows) + more) / MULTIPLE) * MULTIPLE)
    return torch.cat([rows, rows.new_zeros(wanted - len(rows), rows.shape[1])])
