"""The resolution of half maps against the number of their particles, as a STAR file."""

from pathlib import Path

from hoarfrost.io.star import StarTable, read_star, write_star
from hoarfrost.io.star_columns import Floats, float_column

NAME = "reslog.star"
_N, _RESOLUTION, _LIMIT = "hoarfrostNrOfParticles", "rlnAngstromResolution", "hoarfrostBandLimit"


def write_reslog(path: str | Path, n_particles: Floats, resolution_A: Floats, band_limit_A: float) -> None:
    """Write blocks data_general, with the band limit in Å, and data_reslog, with a row for each number (k,).

    Raises UsageError where the file cannot be written.
    """
    columns = {
        _N: [f"{number:.0f}" for number in n_particles.tolist()],
        _RESOLUTION: [f"{value:.6f}" for value in resolution_A.tolist()],
    }
    general = StarTable("general", {_LIMIT: [f"{band_limit_A:.6f}"]}, is_loop=False)
    write_star(path, [general, StarTable("reslog", columns)])


def read_reslog(path: str | Path) -> tuple[Floats, Floats, float]:
    """Numbers of particles (k,), resolutions (k,) and the band limit, in Å. Raises DataError for what is missing."""
    star = read_star(path)
    table = star.table("reslog")
    n_particles, resolution_A = (float_column(star.path, table, name, lowest=1e-3) for name in (_N, _RESOLUTION))
    return n_particles, resolution_A, float(float_column(star.path, star.table("general"), _LIMIT, lowest=1e-3)[0])
