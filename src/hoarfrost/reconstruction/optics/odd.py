"""Odd aberrations of a group of particles: the tilt of the beam, and trefoil.

They turn the phase of an image by φ(k), an odd polynomial of k. With q = Σ c m over the group's images (m as in
`few_poses.transfer`), images turned back gain

    2 Re Σ_k (exp(−iφ) − 1) q        with a variance of 2 Σ_k |exp(−iφ) − 1|² w by noise alone, w = Σ c² p

The coefficients of the fit are φ's at the band limit, in radians: of k cos α and k sin α, which a shift of all images
would do and which are left to the poses; of k³ cos α and k³ sin α, coma; of k³ cos 3α and k³ sin 3α, trefoil. They are
normal, those of k³ with the deviation of badly aligned microscopes: images that tell little move them little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.model.few_poses.transfer import TransferEvidence
from hoarfrost.reconstruction.optics.gain import Gain

SHIFT, COMA, TREFOIL = slice(0, 2), slice(2, 4), slice(4, 6)
# Radians at the band limit, and at a spatial frequency of 1 / (3 Å): a beam tilt of 3 mrad at 300 kV.
SHIFT_RAD, USUAL_RAD_AT_3_A = 1.0, 7.3


@dataclass(frozen=True)
class OddSums:
    """Of g groups of particles, both halves of each: `cross` q (g, 2, K, 2), its two parts, and `weight` w (g, 2, K).

    `count` (g, 2) particles are in them. All float64.
    """

    cross: Tensor
    weight: Tensor
    count: Tensor

    @classmethod
    def none(cls, groups: int, size: int) -> OddSums:
        """Before the first particle."""
        shapes = (groups, 2, size, 2), (groups, 2, size), (groups, 2)
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def add(self, seen: TransferEvidence, ctf: Tensor, group: Tensor, half: Tensor) -> None:
        """Add b images with CTFs c (b, K), in groups and halves (b,)."""
        for number in range(len(self.count)):
            for of_half in range(2):
                own = (group == number) & (half == of_half)
                rows = own.nonzero()[:, 0].to(ctf.device)
                cross, weight = ctf[rows] * seen.match[rows], ctf[rows].square() * seen.power[rows]
                self.cross[number, of_half] += torch.view_as_real(cross.sum(dim=0)).cpu()
                self.weight[number, of_half] += weight.sum(dim=0).cpu()
                self.count[number, of_half] += len(rows)

    def plus(self, other: OddSums) -> None:
        """Add other sums."""
        for own, added in ((self.cross, other.cross), (self.weight, other.weight), (self.count, other.count)):
            own += added


@dataclass(frozen=True)
class OddFit:
    """What was found: `coefficients` (6,) of φ, zero where they are not sure to gain, and the `gain`."""

    coefficients: Tensor
    gain: Gain


def odd_basis(disc: FourierDisc) -> Tensor:
    """The six polynomials, each of size 1 at the band limit: (6, K) float64."""
    x, y = (disc.coordinates.to(torch.float64) / disc.r_max).unbind(1)
    r2 = x.square() + y.square()
    return torch.stack([x, y, r2 * x, r2 * y, x**3 - 3 * x * y**2, 3 * x**2 * y - y**3])


def fit_odd(sums: OddSums, group: int, basis: Tensor, finest_A: float) -> OddFit:
    """The coefficients that a group asks for at a band limit of that detail, judged by each half's on the other."""
    usual_rad = USUAL_RAD_AT_3_A * (3 / finest_A) ** 3
    precision = torch.tensor([SHIFT_RAD] * 2 + [usual_rad] * 4, dtype=torch.float64) ** -2
    cross, weight, count = torch.view_as_complex(sums.cross[group]), sums.weight[group], sums.count[group]
    gain, variance = 0.0, 0.0
    for half in range(2):
        phase = _fitted(cross[half], basis, precision) @ basis
        gain += _gain(cross[1 - half], phase)
        variance += 2 * float((weight[1 - half] * _change(phase).abs().square()).sum())
    n = max(float(count.sum()), 1.0)
    judged = Gain(gain / n, math.sqrt(variance) / n, is_chosen=False)
    found = (
        _fitted(cross.sum(dim=0), basis, precision) if judged.is_sure else torch.zeros(len(basis), dtype=torch.float64)
    )
    return OddFit(found, judged)


def _change(phase: Tensor) -> Tensor:
    """exp(−iφ) − 1."""
    return torch.polar(torch.ones_like(phase), -phase) - 1


def _gain(cross: Tensor, phase: Tensor) -> float:
    return 2 * float((_change(phase) * cross).real.sum())


def _fitted(cross: Tensor, basis: Tensor, precision: Tensor) -> Tensor:
    """The coefficients (6,) that are most probable."""

    def loss(values: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        x = torch.from_numpy(values)
        phase = x @ basis
        turned = torch.polar(torch.ones_like(phase), -phase) * cross
        slope = precision * x - 2 * basis @ turned.imag
        return float((precision * x.square()).sum()) / 2 - 2 * float(turned.real.sum()), slope.numpy()

    found = minimize(loss, np.zeros(len(basis)), jac=True, method="BFGS")
    return torch.from_numpy(found.x)
