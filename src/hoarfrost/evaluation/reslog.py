"""How the resolution of a map grows with the number of its particles, and what more of them would give.

With the same poses, the half maps of N particles agree to a resolution d that follows

    1 / d² = a + (2 / B) ln N

as long as the fall-off of the signal with frequency is that of a B-factor (Rosenthal & Henderson 2003, J. Mol. Biol.
333, 721; ResLog plots: Stagg et al. 2014, J. Struct. Biol. 185, 418). A line that flattens says that something else
than the number of particles limits the map.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hoarfrost.io.reslog_star import NAME, read_reslog
from hoarfrost.io.star_columns import Floats

# Fewer points make no line.
LEAST_POINTS = 3
# A resolution this near to the band limit was cut off there.
AT_LIMIT = 1.005


@dataclass(frozen=True)
class ResLog:
    """A line through 1/d² against ln N: `intercept` a and `slope` 2/B in 1/Å², from `n_particles` up to all of them."""

    intercept: float
    slope: float
    n_particles: int

    @property
    def b_factor_A2(self) -> float:
        """B, which has in it the errors of poses and CTF as well as the detector and the molecule."""
        return 2 / self.slope

    def resolution_A(self, n_particles: float) -> float:
        """The resolution that so many particles would give."""
        return float((self.intercept + self.slope * math.log(n_particles)) ** -0.5)

    @property
    def with_twice_A(self) -> float:
        """The resolution that twice as many particles would give."""
        return self.resolution_A(2 * self.n_particles)


def fit_reslog(n_particles: Floats, resolution_A: Floats, band_limit_A: float) -> ResLog | None:
    """The line through the resolutions (k,) of half maps of so many particles (k,), by least squares.

    None where fewer than three were found short of the band limit, all of the particles among them, or where the
    resolution does not grow with their number.
    """
    is_found = resolution_A > AT_LIMIT * band_limit_A
    if int(is_found.sum()) < LEAST_POINTS or not is_found[int(n_particles.argmax())]:
        return None
    x, y = np.log(n_particles[is_found]), resolution_A[is_found] ** -2.0
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / np.square(x - x.mean()).sum())
    return ResLog(float(y.mean()) - slope * float(x.mean()), slope, int(n_particles.max())) if slope > 0 else None


def read_line(folder: Path) -> ResLog | None:
    """The line through what reslog.star in the folder of a map holds, None where there is none.

    Raises DataError for a file that cannot be read.
    """
    return fit_reslog(*read_reslog(folder / NAME)) if (folder / NAME).is_file() else None
