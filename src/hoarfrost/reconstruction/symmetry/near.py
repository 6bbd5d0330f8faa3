"""The point group that a map nearly has, by its correlation with itself alone; no particle is asked.

A body with an axis Cn of n > 2 has two equal moments about its centre of mass: the matrix Σ V(x) x xᵀ has the same
value along all directions across the axis. Where no two are nearly equal only two-fold axes are looked for.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.symmetry.search import CYCLIC, next_group
from hoarfrost.symmetry.axes import SEARCH_R_MAX, Axes, centre_of_mass, find_axes
from hoarfrost.symmetry.point_group import PointGroup

# One odd unit of 14 takes the correlation to 0.92. Smooth maps without symmetry come to 0.8.
LEAST_CORRELATION = 0.9
# Difference of two moments, of their mean, that counts as none.
MOST_UNEVEN = 0.2
MARGIN = 8


@dataclass(frozen=True)
class NearGroup:
    """A `group` and its axes: `rotation` R (3, 3) and `centre` c (3,), in shares of the map's length, float64.

    `correlation` is that of the map with itself, turned about the axes.
    """

    group: str
    rotation: Tensor
    centre: Tensor
    correlation: float

    def axes(self, box: int) -> Axes:
        """The axes in a map of `box` voxels along a side."""
        return Axes(self.rotation, self.centre * box, self.correlation)


def near_group(volume: Tensor, r_max: float, team: Team) -> NearGroup | None:
    """The largest group about whose axes a map (n, n, n), good up to r_max, looks like itself; None where none is."""
    coarse = fourier_resize(volume.cpu(), 2 * int(SEARCH_R_MAX) + MARGIN)
    turns = team.once_number(lambda: float(may_turn(coarse))) > 0
    outcomes = {} if turns else {f"C{n}": False for n in CYCLIC if n > 2}
    while (name := next_group(outcomes)) is not None:
        correlation = _axes(coarse, PointGroup(name), SEARCH_R_MAX, team).correlation
        outcomes[name] = correlation >= LEAST_CORRELATION
    alike = [name for name, is_alike in outcomes.items() if is_alike]
    if not alike:
        return None
    largest = max(alike, key=lambda name: PointGroup(name).order)
    axes = _axes(volume, PointGroup(largest), r_max, team)
    return NearGroup(largest, axes.rotation, axes.centre / len(volume), axes.correlation)


def may_turn(volume: Tensor) -> bool:
    """Whether two moments of a map (n, n, n) are nearly equal, as an axis of more than two folds has them."""
    n = len(volume)
    axis = torch.arange(n, dtype=torch.float64) - n // 2
    places = torch.cartesian_prod(axis, axis, axis).flip(1) - centre_of_mass(volume)
    mass = volume.clamp(min=0).to(torch.float64).flatten()
    moments = torch.linalg.eigvalsh(places.T @ (mass[:, None] * places))
    differences = (moments[1:] - moments[:-1]) / (moments[1:] + moments[:-1]).clamp(min=1e-30)
    return bool(2 * differences.min() < MOST_UNEVEN)


def _axes(volume: Tensor, group: PointGroup, r_max: float, team: Team) -> Axes:
    def numbers() -> Tensor:
        axes = find_axes(volume, group, r_max)
        return torch.cat([axes.rotation.flatten(), axes.centre, torch.tensor([axes.correlation], dtype=torch.float64)])

    found = team.once(numbers, torch.zeros(13, dtype=torch.float64))
    return Axes(found[:9].view(3, 3), found[9:12], float(found[12]))
