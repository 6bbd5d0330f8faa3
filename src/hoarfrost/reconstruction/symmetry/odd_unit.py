"""One unit of a symmetric map that differs from the others: what is in a sphere counts more there, or less.

With S the average over the group, V the symmetric map and s a soft sphere of radius ρ about p, the odd map is

    V + a D        D = s V − S (s V)        a = −1: the unit is missing        a > 0: there is more

The average stays V.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.symmetry.point_group import PointGroup

# Softness of the sphere's edge, in shares of the map's length.
EDGE = 0.018


@dataclass(frozen=True)
class OddUnit:
    """A sphere at `place` (3,) float64, x, y, z from the map's middle, with a `radius`, both in shares of its length.

    `amplitude` is a, and `gain` how many nats better the particles it was found by are explained with it, in all.
    """

    place: Tensor
    radius: float
    amplitude: float = 0.0
    gain: float = 0.0

    def difference(self, volume: Tensor, group: PointGroup) -> Tensor:
        """D of a symmetric map (n, n, n) in the group's frame."""
        inside = self.sphere(len(volume)).to(volume) * volume
        return inside - group(inside)

    def sphere(self, n: int) -> Tensor:
        """The soft sphere s, (n, n, n) float64."""
        distance = (places(n) - self.place).norm(dim=-1)
        return torch.sigmoid((self.radius - distance) / EDGE)


def unit_radius(inside: Tensor, group: PointGroup) -> float:
    """The radius of a ball as large as one of |G| units of what is inside, in shares of the map's length."""
    volume = float((inside > 0).sum()) / inside.numel()
    return float((3 * volume / (4 * math.pi * group.order)) ** (1 / 3))


def places(n: int) -> Tensor:
    """x, y, z of each voxel from the middle, in shares of the length: (n, n, n, 3) float64."""
    axis = (torch.arange(n, dtype=torch.float64) - n // 2) / n
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x, y, z], dim=-1)
