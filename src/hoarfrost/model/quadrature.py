"""Weighted quadratures of orientations and shifts: the sum that stands for the integral over unknown poses.

Orientations: Lebedev directions on the sphere × uniform in-plane angles. The number of nodes follows from the band
limit: an angular step Δ = arctan(1 / r_max) moves the outermost coefficient by one Fourier pixel; at least (3.6/Δ)²
directions and 2π/Δ in-plane angles are used, the latter rounded up to a multiple of four. The transform of a particle
that fills less of the box changes over more Fourier pixels, and the step is longer by as much (`sampled_r_max`).

The set is invariant under the eight rotations that map the image plane's pixel lattice to itself (quarter turns
and flips, `maths.rotations.plane_symmetries`), so only one node in eight, the *base*, needs a slice of its own.

Shifts: a square grid inside `extent`, under a normal prior truncated there.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import lebedev_rule
from torch import Tensor

from hoarfrost.maths.rotations import plane_symmetries, rotations_about_z
from hoarfrost.maths.rows import Rows

# Orders of SciPy's rules; 13, 25 and 27 are left out because they have negative weights.
LEBEDEV_ORDERS = (
    3, 5, 7, 9, 11, 15, 17, 19, 21, 23, 29, 31, 35, 41, 47, 53, 59, 65, 71, 77, 83, 89, 95, 101, 107, 113, 119, 125,
    131,
)  # fmt: skip
LEBEDEV_SIZES = (
    6, 14, 26, 38, 50, 86, 110, 146, 170, 194, 302, 350, 434, 590, 770, 974, 1202, 1454, 1730, 2030, 2354, 2702, 3074,
    3470, 3890, 4334, 4802, 5294, 5810,
)  # fmt: skip
N_SYMMETRIES = 8
# A line on no axis and no mirror plane of the octahedron; directions closer than the second are one.
GENERIC = torch.tensor([0.3, 0.5, 0.81], dtype=torch.float64)
SAME_DIRECTION = 1e-6


@dataclass(frozen=True)
class OrientationQuadrature:
    """Nodes and weights on SO(3): 8 · n_base rotations g R_j, g in D4 of the image plane.

    `base_rotations` is (n_base, 3, 3) float64, reference → image frame; `base_log_weights` is (n_base,) float64, the
    log weight of each of the eight nodes that stem from the base node, so that 8 Σ exp = 1.
    """

    base_rotations: Tensor
    base_log_weights: Tensor
    angular_step_deg: float

    @property
    def n_base(self) -> int:
        """Number of base nodes, each standing for eight."""
        return int(self.base_rotations.shape[0])

    @property
    def n_nodes(self) -> int:
        """Number of orientations in the sum."""
        return N_SYMMETRIES * self.n_base

    def rotations(self) -> Tensor:
        """All nodes, symmetry slowest: (8 · n_base, 3, 3) float64."""
        return (plane_symmetries()[:, None] @ self.base_rotations[None]).reshape(-1, 3, 3)

    def log_weights(self) -> Tensor:
        """Log weights of all nodes in the order of `rotations`: (8 · n_base,) float64."""
        return self.base_log_weights.repeat(N_SYMMETRIES)

    def rotated(self, rotation: Tensor) -> "OrientationQuadrature":
        """The same quadrature turned as a whole in the reference frame, R_j → R_j G, by a rotation (3, 3)."""
        turned = self.base_rotations @ rotation.to(torch.float64)
        return OrientationQuadrature(turned, self.base_log_weights, self.angular_step_deg)

    def unit_of(self, rotations: Tensor) -> "OrientationQuadrature":
        """The same sum for a map with the symmetries (order, 3, 3): of nodes that see it alike one, with all weight.

        The directions have to be invariant under the group, as Lebedev's are under signed permutations of the axes; in
        the image plane angles are even, so that where they begin is of no consequence. A node stands for its opposite
        direction too.
        """
        directions = self.base_rotations[:, 2]
        alike = torch.stack([sign * directions @ rotation for rotation in rotations for sign in (1, -1)])
        # Of those alike, the one furthest along a line that no symmetry keeps.
        furthest = alike[(alike @ GENERIC).argmax(dim=0), torch.arange(len(directions))]
        orbit, direction = (
            torch.unique((d / SAME_DIRECTION).round() + 0.0, dim=0, return_inverse=True)[1]
            for d in (furthest, directions)
        )
        chosen = torch.full((int(orbit.max()) + 1,), len(directions)).scatter_reduce_(0, orbit, direction, "amin")
        kept = direction == chosen[orbit]
        shares = torch.zeros(len(chosen), dtype=torch.float64)
        weight_of_orbit = shares.index_add(0, orbit, self.base_log_weights.exp())
        n_kept = torch.bincount(orbit[kept])
        log_weights = (weight_of_orbit / n_kept).log()[orbit[kept]]
        return OrientationQuadrature(self.base_rotations[kept], log_weights, self.angular_step_deg)


@dataclass(frozen=True)
class ShiftQuadrature:
    """Nodes (S, 2) in pixels (x, y) and normalised log weights (S,), float64."""

    shifts_px: Tensor
    log_weights: Tensor

    def phases(self, coordinates: Tensor, box: int) -> Tensor:
        """S_t(k) = exp(−2πi k·t / N): complex128 (S, K) for frequencies (K, 2) and N = `box`."""
        angle = -2 * math.pi / box * (self.shifts_px @ coordinates.to(torch.float64).T)
        return torch.polar(torch.ones_like(angle), angle)


@dataclass(frozen=True)
class LikelyPoses(Rows):
    """Nodes of the quadrature that hold much of the posterior of b images, m in all, in no order.

    `image` (m,) numbers the images from 0; `node` (m,) indexes
    `OrientationQuadrature.rotations()`, `shift` (m,) the shift nodes; `probability` (m,).
    """

    image: Tensor
    node: Tensor
    shift: Tensor
    probability: Tensor

    def each_once(self) -> "LikelyPoses":
        """The same poses on the CPU, of which each image's best may be there twice."""
        here = self.to("cpu")
        _, first = np.unique(torch.stack(here.columns()[:3]).numpy(), axis=1, return_index=True)
        return here[torch.from_numpy(first)]


@dataclass(frozen=True)
class PosePrior:
    """Shifts are normal with `shift_sigma_px` along x and y, cut off at `shift_extent_px`; orientations uniform."""

    shift_sigma_px: float
    shift_extent_px: float


def make_orientation_quadrature(r_max: float) -> OrientationQuadrature:
    """The quadrature of SO(3) for a band limit r_max in Fourier pixels.

    Raises ValueError where r_max needs more directions than the largest Lebedev rule has (r_max > 21).
    """
    step = math.atan(1 / r_max)
    wanted = (3.6 / step) ** 2
    order = next((o for o, n in zip(LEBEDEV_ORDERS, LEBEDEV_SIZES, strict=True) if n >= wanted), None)
    if order is None:
        raise ValueError(f"r_max {r_max} needs {wanted:.0f} directions, more than the {LEBEDEV_SIZES[-1]} of Lebedev")
    points, weights = lebedev_rule(order)
    x, y, z = torch.from_numpy(points)
    # Lebedev rules hold −d with every d; a flip about x takes one to the other, so half of the directions will do.
    tolerance = 1e-9
    upper = (z > tolerance) | ((z.abs() <= tolerance) & ((y > tolerance) | ((y.abs() <= tolerance) & (x > 0))))
    x, y, z = x[upper], y[upper], z[upper]
    direction_weights = torch.from_numpy(weights)[upper] / (4 * math.pi)

    n_quarter = in_plane_angles(r_max)
    in_plane = rotations_about_z(torch.arange(n_quarter, dtype=torch.float64) * (math.pi / 2 / n_quarter))
    to_pole = _rotations_to_pole(torch.stack([x, y, z], dim=-1))
    base = (in_plane[None] @ to_pole[:, None]).reshape(-1, 3, 3)
    # A direction and its opposite each carry four turns of every in-plane angle.
    node_weights = direction_weights / (4 * n_quarter)
    log_weights = node_weights.log()[:, None].expand(-1, n_quarter).reshape(-1)
    return OrientationQuadrature(base, log_weights, math.degrees(step))


def sampled_r_max(r_max: float, diameter: float) -> float:
    """The band limit whose orientations do for a particle up to r_max, of a `diameter` as a share of the box.

    A turn by Δ moves what is D/2 from the centre by Δ D/2: how fine orientations have to be goes as r_max D.
    """
    return r_max * min(1.0, diameter)


def in_plane_angles(r_max: float) -> int:
    """In-plane angles of the base nodes for a band limit, a quarter of all."""
    return math.ceil(2 * math.pi / math.atan(1 / r_max) / 4)


def _rotations_to_pole(directions: Tensor) -> Tensor:
    """Rotations (n, 3, 3) that take unit vectors (n, 3) to the z axis, by the shortest way in azimuth."""
    x, y, z = directions.unbind(-1)
    azimuth, polar = torch.atan2(y, x), torch.acos(z.clamp(-1, 1))
    turned = rotations_about_z(-azimuth)
    cos, sin, zero, one = polar.cos(), polar.sin(), torch.zeros_like(polar), torch.ones_like(polar)
    tilt = torch.stack([cos, zero, -sin, zero, one, zero, sin, zero, cos], dim=-1).reshape(-1, 3, 3)
    return tilt @ turned


def make_shift_quadrature(r_max: float, box: int, sigma_px: float, extent_px: float) -> ShiftQuadrature:
    """Square grid of shifts within `extent_px` of zero under N(0, σ²), truncated.

    The spacing N / (π r_max) turns the phase of the outermost coefficient by 2 rad from node to node, at most 1 rad
    off the nearest along each axis. `sigma_px` is per axis; zero, or an extent below the spacing, leaves one node.
    """
    spacing = box / (math.pi * r_max)
    reach = math.floor(extent_px / spacing + 1e-9) if sigma_px > 0 else 0
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64) * spacing
    grid = torch.cartesian_prod(steps, steps).reshape(-1, 2)
    squared = grid.square().sum(-1)
    inside = squared <= extent_px**2 + 1e-9
    inside[grid.shape[0] // 2] = True
    log_weights = -squared[inside] / (2 * max(sigma_px, 1e-9) ** 2)
    return ShiftQuadrature(grid[inside], log_weights - log_weights.logsumexp(0))
