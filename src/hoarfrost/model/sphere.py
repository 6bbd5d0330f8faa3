"""The likelihood of images under the spherical average of a map: what is left when no orientation is known.

The mean of exp(−2πi k·x / n) over all rotations is sinc(2 |k| |x| / n), so that of a map V the average has

    V̂°(|k|) = Σ_x V(x) sinc(2 |k| |x| / n)

Every orientation gives the same slice, and the sum over poses is one over shifts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc, radius_grid
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import PosePrior, make_shift_quadrature

# Shifts are as close as for a band limit so many times higher: nothing else is summed over, so that it costs nothing.
FINER = 2.0
IMAGES_AT_ONCE = 50
# Fourier pixels up to which the average is seen, as far as it can hold anything: shifts to sum over grow as the square.
LARGEST_R_MAX = 36.0


def spherical_slice(volume: Tensor, disc: FourierDisc) -> Tensor:
    """The slice of a map's spherical average, as `SliceOperator.slices` has those of maps: real float64 (K,).

    The map (n, n, n) spans the length of the images.
    """
    n = volume.shape[-1]
    # Squares of the distances between voxels are whole numbers, of which not all occur.
    square = radius_grid(n, 3).square().round().to(torch.int64).flatten()
    of_square = torch.bincount(square, volume.cpu().to(torch.float64).flatten())
    squares = torch.bincount(square).nonzero().squeeze(1)
    radii, coefficient = torch.unique(disc.radii, return_inverse=True)
    profile = torch.sinc(2 / n * radii[:, None] * squares.to(torch.float64).sqrt()) @ of_square[squares]
    return profile[coefficient] / disc.box


@dataclass(frozen=True)
class Spheres:
    """Spherical averages V° of C maps with shares, as images see them up to `LARGEST_R_MAX`, and nothing beyond.

    `slices` (C, K) and `log_shares` (C,) of the maps, `phases` (S, K) and `log_weights` (S,) of the shifts; K counts
    the coefficients that it is seen by.
    """

    slices: Tensor
    log_shares: Tensor
    phases: Tensor
    log_weights: Tensor

    @classmethod
    def of(cls, volumes: Tensor, log_shares: Tensor, disc: FourierDisc, prior: PosePrior, like: Tensor) -> Spheres:
        """Those of maps (C, n, n, n), on the device and with the precision of a real tensor, as images have."""
        disc = FourierDisc(disc.box, min(disc.r_max, LARGEST_R_MAX))
        shifts = make_shift_quadrature(FINER * disc.r_max, disc.box, prior.shift_sigma_px, prior.shift_extent_px)
        slices = torch.stack([spherical_slice(volume, disc) for volume in volumes])
        phases = shifts.phases(disc.coordinates, disc.box).to(like.device, like.dtype.to_complex())
        return cls(slices.to(like), log_shares, phases, shifts.log_weights.to(like.device))

    def log_evidence(self, images: WhitenedImages) -> Tensor:
        """log p(Ĩ | V°) of b images, (b,) float64."""
        of_class = []
        for of_slice, log_share in zip(self.slices, self.log_shares.tolist(), strict=True):
            parts = []
            for first in range(0, len(images), IMAGES_AT_ONCE):
                part = images[slice(first, first + IMAGES_AT_ONCE)]
                # The coefficients of a smaller disc come first.
                data, ctf = part.data[:, : len(of_slice)], part.ctf[:, : len(of_slice)]
                filtered = ctf * of_slice
                products = ((data.conj() * filtered) @ self.phases.T).real.to(torch.float64)
                power = filtered.square().sum(dim=1, dtype=torch.float64)
                parts.append((2 * products + self.log_weights).logsumexp(dim=1) - power)
            of_class.append(torch.cat(parts) + log_share)
        return torch.stack(of_class, dim=1).logsumexp(dim=1) + images.log_constant
