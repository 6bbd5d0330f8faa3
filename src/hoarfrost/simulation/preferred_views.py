"""Orientations that prefer some views, as particles at an air–water interface do.

The direction of view in the reference frame, d = Rᵀ e_z, the third row of R, has the Watson density

    p(d) ∝ exp( κ (d·z)² )          0 is uniform,

so for κ > 0 views along z and −z are the commonest, and for κ < 0 those across z, about a great circle. The azimuth of
d and the in-plane angle are uniform. t = |d·z| has the density exp(κ t²) on [0, 1]. For κ > 0 proposals from exp(κ t),
by inversion, are accepted with probability exp(κ (t² − t)). For κ < 0 it is inverted,

    t = erf⁻¹( u erf(√|κ|) ) / √|κ|          u uniform.
"""

import math

import numpy as np
import torch
from torch import Tensor

from hoarfrost.maths.rotations import rotations_from_relion_deg


def preferred_rotations(n: int, kappa: float, generator: torch.Generator) -> Tensor:
    """n rotations with viewing directions about ±z for κ > 0, across z for κ < 0: (n, 3, 3) float64."""
    t = _along_z(n, kappa, generator) if kappa > 0 else _across_z(n, kappa, generator)
    azimuth, in_plane, side = torch.rand(3, n, generator=generator, dtype=torch.float64)
    cosine = torch.where(side < 0.5, t, -t)
    angles_deg = torch.stack([360 * azimuth, torch.rad2deg(torch.acos(cosine)), 360 * in_plane], dim=1)
    return torch.from_numpy(np.ascontiguousarray(rotations_from_relion_deg(angles_deg.numpy())))


def _along_z(n: int, kappa: float, generator: torch.Generator) -> Tensor:
    """n values of |d·z| for κ > 0."""
    accepted = torch.empty(0, dtype=torch.float64)
    while len(accepted) < n:
        uniform, chance = torch.rand(2, n, generator=generator, dtype=torch.float64)
        floor = torch.exp(torch.tensor(-kappa, dtype=torch.float64))
        t = (1 + torch.log(uniform + (1 - uniform) * floor) / kappa).clamp(0, 1)
        accepted = torch.cat([accepted, t[chance < torch.exp(kappa * (t.square() - t))]])
    return accepted[:n]


def _across_z(n: int, kappa: float, generator: torch.Generator) -> Tensor:
    """n values of |d·z| for κ < 0."""
    uniform = torch.rand(n, generator=generator, dtype=torch.float64)
    root = math.sqrt(-kappa)
    inverse: Tensor = torch.erfinv(uniform * math.erf(root))
    return (inverse / root).clamp(0, 1)
