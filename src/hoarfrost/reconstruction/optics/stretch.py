"""The anisotropic magnification of a group of particles: by how much their images are stretched.

A stretch e = (e₁, e₂) as in `few_poses.stretch` gains E(e) ≈ g·e − e·H e / 2, sums over the group's particles. It is
normal, with the deviation of badly aligned microscopes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.model.few_poses.stretch import StretchQuadratics
from hoarfrost.reconstruction.optics.gain import Gain

USUAL_STRETCH = 0.01


@dataclass(frozen=True)
class StretchFit:
    """What was found: the `stretch` (2,), zero where it is not sure to gain, and the `gain`."""

    stretch: Tensor
    gain: Gain


def fit_stretch(quadratics: StretchQuadratics, half: Tensor) -> StretchFit:
    """The stretch that a group's n particles, in halves (n,), ask for, judged by each half's on the other."""
    gains = torch.zeros(len(half), dtype=torch.float64)
    for of_half in range(2):
        other = half != of_half
        found = _fitted(quadratics[half == of_half])
        gains[other] = quadratics[other].gains(found.expand(int(other.sum()), -1))
    error = float(gains.std()) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    gain = Gain(float(gains.mean()) if len(gains) else 0.0, error, is_chosen=False)
    return StretchFit(_fitted(quadratics) if gain.is_sure else torch.zeros(2, dtype=torch.float64), gain)


def _fitted(quadratics: StretchQuadratics) -> Tensor:
    """The most probable stretch (2,)."""
    precision = torch.eye(2, dtype=torch.float64) / USUAL_STRETCH**2
    found: Tensor = torch.linalg.solve(quadratics.curvature.sum(dim=0) + precision, quadratics.slope.sum(dim=0))
    return found
