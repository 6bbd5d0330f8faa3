"""Even aberrations: the astigmatism of each micrograph; spherical aberration and tetrafoil of each group of particles.

They add a phase ψ(k) to χ, the argument of the CTF c, whose derivative by χ is s. About ψ = 0, with a and p as in
`defocus`,

    E(ψ) ≈ Σ_k g ψ − h ψ² / 2        g = 2 s (a − p c)      h = 2 p s²

A particle's own defocus takes part, and is integrated out; so are its micrograph's two coefficients of astigmatism,
normal with one deviation. The coefficients of the fit are ψ's at the band limit, in radians.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rows import Rows
from hoarfrost.model.few_poses.transfer import TransferEvidence
from hoarfrost.reconstruction.optics.gain import Gain

# Columns of the basis: k²; k² cos 2α, k² sin 2α; k⁴; k⁴ cos 2α, k⁴ sin 2α; k⁴ cos 4α, k⁴ sin 4α.
N_TERMS, ASTIGMATISM, OF_GROUP = 8, slice(0, 2), slice(2, 7)
# Radians at the band limit; that of a particle's defocus is generous, and those of a group nearly free.
DEFOCUS_RAD, GROUP_RAD = 1.0, 10.0
ASTIGMATISM_RAD = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)


def even_basis(disc: FourierDisc) -> Tensor:
    """The eight polynomials, each of size 1 at the band limit: (8, K) float64."""
    x, y = (disc.coordinates.to(torch.float64) / disc.r_max).unbind(1)
    r2, cos2, sin2 = x**2 + y**2, x**2 - y**2, 2 * x * y
    return torch.stack([r2, cos2, sin2, r2**2, r2 * cos2, r2 * sin2, cos2**2 - sin2**2, 2 * cos2 * sin2])


@dataclass(frozen=True)
class EvenQuadratics(Rows):
    """E(ψ) of n particles as a quadratic of the coefficients: `slope` (n, 8) and `curvature` (n, 8, 8) float64."""

    slope: Tensor
    curvature: Tensor

    @classmethod
    def none(cls, n: int) -> EvenQuadratics:
        """Of particles that were not looked at."""
        shape = n, N_TERMS
        return cls(torch.zeros(shape, dtype=torch.float64), torch.zeros(*shape, N_TERMS, dtype=torch.float64))

    @classmethod
    def of(cls, seen: TransferEvidence, ctf: Tensor, slope: Tensor, basis: Tensor) -> EvenQuadratics:
        """Those of b images with CTFs c and their derivatives s, (b, K)."""
        basis = basis.to(ctf)
        g = 2 * slope * (seen.match.real - seen.power * ctf)
        h = 2 * seen.power * slope.square()
        rows, columns = torch.tril_indices(N_TERMS, N_TERMS)
        products = h @ (basis[rows] * basis[columns]).T
        curvature = torch.zeros(len(ctf), N_TERMS, N_TERMS, dtype=torch.float64)
        curvature[:, rows, columns] = curvature[:, columns, rows] = products.cpu().to(torch.float64)
        return cls((g @ basis.T).cpu().to(torch.float64), curvature)

    def without_defocus(self) -> EvenQuadratics:
        """With each particle's own defocus integrated out: seven coefficients."""
        across = self.curvature[:, 0, 1:]
        share = across / (self.curvature[:, 0, 0] + DEFOCUS_RAD**-2)[:, None]
        slope = self.slope[:, 1:] - share * self.slope[:, :1]
        return EvenQuadratics(slope, self.curvature[:, 1:, 1:] - share[:, :, None] * across[:, None])

    def gains(self, coefficients: Tensor) -> Tensor:
        """What each particle gains by its coefficients (n, 7): (n,)."""
        bent = torch.einsum("ni,nij,nj->n", coefficients, self.curvature, coefficients)
        return (self.slope * coefficients).sum(dim=1) - bent / 2


@dataclass(frozen=True)
class EvenFit:
    """What was found: `coefficients` (n, 7) of each particle's ψ but its own defocus, and what they gain."""

    coefficients: Tensor
    gain: Gain


def fit_even(quadratics: EvenQuadratics, micrograph: Tensor, group: Tensor, half: Tensor) -> EvenFit:
    """The coefficients that particles in micrographs (n,) and groups (n,) ask for, judged by each half's on the other.

    Astigmatism, or what groups have in common, is left out where the other half gains more without.
    """
    parts = quadratics.without_defocus()
    nothing = torch.zeros(len(half), N_TERMS - 1, dtype=torch.float64)
    best, chosen = Gain.none(), (0.0, 0.0)
    for group_rad in (0.0, GROUP_RAD):
        for astigmatism_rad in ASTIGMATISM_RAD:
            if group_rad == astigmatism_rad == 0:
                continue
            gains = torch.zeros(len(half), dtype=torch.float64)
            for of_half in range(2):
                found = _solved(parts, half == of_half, micrograph, group, astigmatism_rad, group_rad)
                other = half != of_half
                gains[other] = parts[other].gains(found[other])
            gain = Gain.of(gains)
            if gain.mean > best.mean:
                best, chosen = gain, (astigmatism_rad, group_rad)
    if not best.is_sure:
        return EvenFit(nothing, best)
    everyone = torch.ones_like(half, dtype=torch.bool)
    return EvenFit(_solved(parts, everyone, micrograph, group, *chosen), best)


def _solved(
    parts: EvenQuadratics, by: Tensor, micrograph: Tensor, group: Tensor, astigmatism_rad: float, group_rad: float
) -> Tensor:
    """The coefficients (n, 7) of all particles that those chosen, bool (n,), ask for."""
    of_both = torch.stack([group, micrograph], dim=1)
    # A micrograph's particles of one group have its astigmatism: in practice all of them.
    found, number = torch.unique(of_both, dim=0, return_inverse=True)
    slope = torch.zeros(len(found), N_TERMS - 1, dtype=torch.float64).index_add_(0, number[by], parts.slope[by])
    curvature = torch.zeros(len(found), N_TERMS - 1, N_TERMS - 1, dtype=torch.float64)
    curvature.index_add_(0, number[by], parts.curvature[by])
    coefficients = torch.zeros_like(slope)
    own = curvature[:, ASTIGMATISM, ASTIGMATISM] + _precision(astigmatism_rad, 2)
    across = curvature[:, ASTIGMATISM, OF_GROUP]
    of_group, row = torch.unique(found[:, 0], return_inverse=True)
    left = slope[:, OF_GROUP] - (across.mT @ torch.linalg.solve(own, slope[:, ASTIGMATISM])[..., None])[..., 0]
    bent = curvature[:, OF_GROUP, OF_GROUP] - across.mT @ torch.linalg.solve(own, across)
    size = N_TERMS - 3
    total_left = torch.zeros(len(of_group), size, dtype=torch.float64).index_add_(0, row, left)
    total_bent = torch.zeros(len(of_group), size, size, dtype=torch.float64).index_add_(0, row, bent)
    common = torch.linalg.solve(total_bent + _precision(group_rad, size), total_left)
    coefficients[:, OF_GROUP] = common[row]
    rest = slope[:, ASTIGMATISM] - (across @ common[row][..., None])[..., 0]
    coefficients[:, ASTIGMATISM] = torch.linalg.solve(own, rest)
    coefficients[:, ASTIGMATISM] *= astigmatism_rad > 0
    coefficients[:, OF_GROUP] *= group_rad > 0
    return coefficients[number]


def _precision(deviation_rad: float, size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64) / max(deviation_rad, 1e-6) ** 2
