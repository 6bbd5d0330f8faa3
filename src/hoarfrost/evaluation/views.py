"""How evenly the views of a run cover the map, from its folder.

An image along d tells the Fourier coefficients of the plane through the origin across d (the Fourier slice theorem).
The slice is as thick as one over the particle's diameter D. At resolution ρ it reaches the directions u with

    |u·d| ≤ sin α = ρ / 2D

Of evenly spread views a share sin α reaches every u (Crowther, DeRosier & Klug 1970, Proc. R. Soc. A 317, 319). A
direction that far fewer particles reach holds little but noise, and the map is smeared out along it.
"""

import math
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hoarfrost.errors import DataError
from hoarfrost.io.fsc_star import read_fsc
from hoarfrost.io.particles_star import read_rotations
from hoarfrost.io.star import StarFile, read_star
from hoarfrost.io.star_columns import float_column
from hoarfrost.io.star_optics import particle_table
from hoarfrost.symmetry.point_group import PointGroup

N_DIRECTIONS = 1000
# Particles to expect at each direction: chance alone then never leaves a tenth of them.
LEAST_EXPECTED = 100.0
MOST_SINE = 0.5
SPARSE = 0.1
EVEN_UP_TO = 0.01
# A direction with a third of the particles has 1.7 times the noise, which shows in a map.
FEW = 0.3
JUNK_ABOVE = 0.5
VIEWS_PER_PRODUCT = 10_000
CIRCLE_DEG = 10.0


@dataclass(frozen=True)
class Views:
    """The views of n particles, those of their symmetry mates included, and how many reach each direction.

    `views` (m, 3): unit vectors in the map's frame, x, y, z, from which the particles are seen. `directions` (u, 3):
    evenly over the half sphere z ≥ 0, `coverage` (u,) float64: particles that reach them, over the mean.
    """

    views: Tensor
    directions: Tensor
    coverage: Tensor

    @cached_property
    def sparse(self) -> Tensor:
        """The directions that fewer than a tenth of the mean number of particles reach: (s, 3)."""
        return self.directions[self.coverage < SPARSE]

    @property
    def sparse_share(self) -> float:
        """The share of such directions, from 0 to 1."""
        return len(self.sparse) / len(self.directions)

    @property
    def even(self) -> bool:
        """Whether no direction has less than a third of the usual number of particles."""
        return self.least > FEW

    @property
    def has_gaps(self) -> bool:
        """Whether more than one in a hundred directions is sparse."""
        return self.sparse_share >= EVEN_UP_TO

    @property
    def least(self) -> float:
        """Particles that reach the direction with the fewest, over the mean."""
        return float(self.coverage.min())

    @property
    def sparse_axis(self) -> Tensor:
        """The first principal axis of `sparse`: unit vector (3,), z ≥ 0."""
        axis: Tensor = torch.linalg.eigh(self.sparse.T @ self.sparse).eigenvectors[:, -1]
        return axis if float(axis[2]) >= 0 else -axis

    def summary(self) -> str:
        """One sentence for a structural biologist."""
        if self.even:
            return "even"
        if not self.has_gaps:
            return f"somewhat uneven; the direction seen least has {self.least:.0%} of the usual number of particles"
        return (
            f"uneven; {self.sparse_share:.0%} of directions have less than a tenth of the usual number of particles: "
            "features along them are smeared"
        )


def measure_views(rotations: Tensor, sine: float, symmetry: str = "C1") -> Views:
    """The views of particles with these rotations (n, 3, 3), reference → image frame; see the top of this module.

    `sine` is sin α, made larger where it would leave too few particles to count, but not beyond ½. Raises ValueError
    where there are no particles.
    """
    if len(rotations) == 0:
        raise ValueError("no particles, so no views")
    views = views_of(rotations, symmetry)
    sine = min(max(sine, LEAST_EXPECTED / len(views)), MOST_SINE)
    directions = half_sphere(N_DIRECTIONS)
    return Views(views, directions, _near_circles(views, directions, sine) / (sine * len(views)))


def _near_circles(views: Tensor, directions: Tensor, sine: float) -> Tensor:
    """How many views (m, 3) are as near to the great circle across each direction (u, 3): (u,) float64."""
    counts = torch.zeros(len(directions), dtype=torch.float64)
    for part in torch.split(views, VIEWS_PER_PRODUCT):
        counts += ((part @ directions.T).abs() <= sine).sum(dim=0)
    return counts


def views_of(rotations: Tensor, symmetry: str = "C1") -> Tensor:
    """The views of particles with these rotations (n, 3, 3), and of their symmetry mates: unit vectors (m, 3)."""
    group = PointGroup(symmetry).rotations
    # Rᵀ z, and what the group's rotations make of it.
    return torch.einsum("gij,nj->ngi", group.to(torch.float64), rotations[:, 2].to(torch.float64)).reshape(-1, 3)


def share_on_circle(views: Tensor) -> float:
    """The share of views (m, 3) within `CIRCLE_DEG` of one great circle: 17 % of even ones; zero where m is."""
    counts = _near_circles(views, half_sphere(N_DIRECTIONS), math.sin(math.radians(CIRCLE_DEG)))
    return float(counts.max()) / max(1, len(views))


def has_views(run: str | Path) -> bool:
    """Whether a run folder has particles that are not junk; the folder of a class may have none at all."""
    path = Path(run) / "particles.star"
    return path.is_file() and len(_kept(read_star(path))) > 0


def read_views(run: str | Path) -> Views:
    """The views of a run folder's particles.star, junk left out, at the resolution of fsc.star.

    Raises DataError where particles.star has no poses, or nothing but junk.
    """
    run = Path(run)
    # The images may be elsewhere by now, and are not needed.
    star = read_star(run / "particles.star")
    rotations = read_rotations(star.path, particle_table(star))
    if rotations is None:
        raise DataError(star.path, expected="columns rlnAngleRot, rlnAngleTilt and rlnAnglePsi", found="no poses")
    kept = _kept(star)
    if len(kept) == 0:
        raise DataError(star.path, expected="particles", found="nothing but junk")
    settings = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    sine = read_fsc(run / "fsc.star").resolution_A / (2 * settings["diameter_A"])
    return measure_views(torch.from_numpy(rotations[kept]), sine, settings["symmetry"])


def _kept(star: StarFile) -> npt.NDArray[np.int64]:
    junk = float_column(star.path, particle_table(star), "hoarfrostJunkProbability", default=0.0)
    return np.flatnonzero(junk <= JUNK_ABOVE)


def half_sphere(n: int) -> Tensor:
    """n unit vectors evenly over the half sphere z ≥ 0, on a Fibonacci spiral: (n, 3) float64."""
    steps = torch.arange(n, dtype=torch.float64) + 0.5
    z = 1 - steps / n
    angle = steps * math.pi * (3 - math.sqrt(5))
    radius = (1 - z.square()).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=1)
