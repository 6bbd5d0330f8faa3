"""The odd unit that particles speak for most, looked for all over a nearly symmetric map.

The likelihood of a pose is quadratic in the map, so that two maps tell it for every amplitude a of a sphere:

    l(a) = l(0) + a (l(1) − l(−1)) / 2 + a² (l(1) + l(−1) − 2 l(0)) / 2

Five numbers make the whole difference, so that poor images find it where a map of its own for each view would only
fit their noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.symmetry.odd_unit import EDGE, OddUnit, places, unit_radius
from hoarfrost.reconstruction.symmetry.views import Views, log_densities, over_views
from hoarfrost.symmetry.point_group import PointGroup

AMPLITUDES = (*np.arange(-1.25, 0, 0.125), *np.geomspace(0.125, 16, 15))
# Spheres are tried so far apart, and with radii of so much, of the radius that a unit would have as a ball.
STEP, RADII = 0.6, (0.4, 1.5)
EVALUATIONS = 60
# Spheres about an axis hardly tell units apart.
LEAST_DIFFERENCE = 0.5


@dataclass(frozen=True)
class Comparison:
    """Particles `members` (m,), `views` in the group's frame, and a symmetric `volume` (n, n, n) that is good to r_max.

    `alike` (m, |G|) is the log-density of each view under that map.
    """

    volume: Tensor
    r_max: float
    members: Tensor
    views: Views
    alike: Tensor

    @classmethod
    def of(cls, env: Env, volume: Tensor, r_max: float, members: Tensor, views: Views) -> Comparison:
        """With the log-densities that follow."""
        return cls(volume, r_max, members, views, log_densities(env, volume, r_max, members, views))

    @property
    def group(self) -> PointGroup:
        """The group of the map."""
        return self.views.group

    def with_amplitude(self, env: Env, unit: OddUnit) -> tuple[OddUnit, Tensor]:
        """A unit with its best amplitude, and the log-density of each view with it, (m, |G|)."""
        slope, bend = self._expansion(env, unit)
        amplitudes = torch.tensor([a for a in AMPLITUDES if a < self.group.order], dtype=torch.float64)
        before = over_views(self.alike).sum()
        gains = torch.stack([over_views(self.alike + a * slope + a * a * bend).sum() - before for a in amplitudes])
        gains = env.team.same(gains)
        best = int(gains.argmax())
        a = float(amplitudes[best])
        found = OddUnit(unit.place, unit.radius, a, float(gains[best]))
        return found, self.alike + a * slope + a * a * bend

    def of_unit(self, env: Env, unit: OddUnit) -> Tensor:
        """The log-density of each view with a unit as it is, (m, |G|)."""
        slope, bend = self._expansion(env, unit)
        return self.alike + unit.amplitude * slope + unit.amplitude**2 * bend

    def _expansion(self, env: Env, unit: OddUnit) -> tuple[Tensor, Tensor]:
        difference = unit.difference(self.volume, self.group)
        more, less = (
            log_densities(env, self.volume + sign * difference, self.r_max, self.members, self.views)
            for sign in (1, -1)
        )
        return (more - less) / 2, (more + less) / 2 - self.alike

    def best_of(self, env: Env, inside: Tensor) -> OddUnit:
        """The best of spheres spread over a unit of what is `inside` (n, n, n); none is climbed."""
        tried = [self.with_amplitude(env, unit)[0] for unit in self._spread(inside)]
        return max(tried, key=lambda unit: unit.gain, default=OddUnit(torch.zeros(3, dtype=torch.float64), EDGE))

    def climbed(self, env: Env, start: OddUnit, inside: Tensor) -> OddUnit:
        """The best sphere near one, by the simplex of Nelder & Mead over its place and the log of its radius."""
        whole = unit_radius(inside, self.group)

        def at(step: np.ndarray) -> OddUnit:
            radius = start.radius * math.exp(step[3])
            radius = min(max(radius, RADII[0] * whole), RADII[1] * whole)
            return OddUnit(start.place + torch.from_numpy(step[:3]) * whole, radius)

        def loss(step: np.ndarray) -> float:
            return -self.with_amplitude(env, at(step))[0].gain

        return self.with_amplitude(env, at(_lowest(loss)))[0]

    def _spread(self, inside: Tensor) -> list[OddUnit]:
        """Spheres about places that are far enough from each other, and from all that look like another."""
        radius = unit_radius(inside, self.group)
        points = places(len(inside))[inside.cpu() > 0]
        left = torch.ones(len(points), dtype=torch.bool)
        found: list[OddUnit] = []
        while bool(left.any()):
            place = points[left.nonzero()[0, 0]]
            alike = self.group.rotations @ place
            left &= torch.cdist(points, alike).min(dim=1).values > STEP * radius
            unit = OddUnit(place, radius)
            whole = unit.sphere(len(inside)).to(self.volume) * self.volume
            if float(unit.difference(self.volume, self.group).norm()) > LEAST_DIFFERENCE * float(whole.norm()):
                found.append(unit)
        return found


def _lowest(loss: Callable[[np.ndarray], float]) -> np.ndarray:
    simplex = np.vstack([np.zeros(4), np.diag([0.35, 0.35, 0.35, 0.25])])
    options = {"initial_simplex": simplex, "maxfev": EVALUATIONS, "xatol": 1e-2, "fatol": 0.1}
    found: np.ndarray = minimize(loss, np.zeros(4), method="Nelder-Mead", options=options).x
    return found
