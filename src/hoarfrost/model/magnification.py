"""Anisotropic magnification: an image whose frequencies are stretched against those of the particle.

A microscope that magnifies by more along one direction records, with M a 2 × 2 matrix of each optics group,

    Ĩ(k) = C(k) exp(−2πi k·t) V̂(Rᵀ M k)

as RELION writes it. At k = M⁻¹ q that is the image of an evenly magnified particle, seen at frequencies q of its own,
with the CTF C(M⁻¹ q) and the shift t′ = M⁻ᵀ t:

    Ĩ(M⁻¹ q) = C(M⁻¹ q) exp(−2πi q·t′) V̂(Rᵀ q)

So images are transformed at M⁻¹ q, off the grid, and nothing after that needs to know. The noise there is nearly as
white as on the grid.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.nufft.images import spectra_at


@dataclass(frozen=True)
class Magnification:
    """That of n particles, which are in a `group` (n,) int64 of g each, with `matrices` M (g, 2, 2) float64."""

    group: Tensor
    matrices: Tensor

    @property
    def is_even(self) -> bool:
        """Whether M is 1 everywhere."""
        return bool((self.matrices == torch.eye(2, dtype=torch.float64)).all())

    def stretched(self, group: Tensor, matrices: Tensor) -> "Magnification":
        """With images of groups (n,) stretched once more: A M, with A of `matrices` (g, 2, 2)."""
        pairs, new_group = torch.unique(torch.stack([self.group, group]), dim=1, return_inverse=True)
        return Magnification(new_group, matrices[pairs[1]] @ self.matrices[pairs[0]])

    def by_group(self, particles: Tensor, frequencies: Tensor, of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """`of` rows of the chosen particles (b,) and M⁻¹ q of these (K, 2): (b, K), from all groups put together.

        `frequencies` (K, 2) are q, in any unit.
        """
        if self.is_even:
            return of(torch.arange(len(particles)), frequencies)
        group = self.group[particles]
        parts: Tensor | None = None
        for number in sorted(set(group.tolist())):
            rows = (group == number).nonzero().squeeze(1)
            found = of(rows, frequencies.to(torch.float64) @ torch.linalg.inv(self.matrices[number]).T)
            parts = found.new_empty(len(particles), *found.shape[1:]) if parts is None else parts
            parts[rows] = found
        assert parts is not None
        return parts

    def pack(self, images: Tensor, particles: Tensor, disc: FourierDisc) -> Tensor:
        """Images (b, N, N) of chosen particles (b,), as evenly magnified ones, packed into a disc: complex (b, K)."""
        if self.is_even:
            return disc.pack(images)
        return self.by_group(particles, disc.coordinates, lambda rows, k: spectra_at(images[rows], k))
