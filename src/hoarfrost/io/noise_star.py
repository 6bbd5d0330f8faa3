"""The noise spectra of a run's images as a STAR file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hoarfrost.errors import DataError
from hoarfrost.io.star import StarTable, read_star, write_star
from hoarfrost.io.star_columns import Floats, float_column, integer_column

NOISE, GROUPS = "noise", "noise_optics_groups"
VARIANCE = "hoarfrostNoiseVariance"
FREQUENCY = "rlnResolution"


@dataclass(frozen=True)
class NoiseSpectra:
    """Variance of the noise in shells 0, 1, … of normalised images, (shells,) float64; white noise has 1 in each.

    `in_use` is that of all images, and `of_groups` that of each optics group, by which the run divides its images where
    they are enough to know it. Shell s is at s / `length_A`, in 1/Å.
    """

    in_use: Floats
    of_groups: Mapping[int, Floats]
    length_A: float


def write_noise(path: str | Path, spectra: NoiseSpectra) -> None:
    """Write block data_noise with a row a shell, and data_noise_optics_groups with a row a group and shell.

    Raises UsageError where the file cannot be written.
    """
    groups: dict[str, list[str]] = {"rlnOpticsGroup": []}
    for number, spectrum in spectra.of_groups.items():
        for name, values in _columns(spectrum, spectra.length_A).items():
            groups.setdefault(name, []).extend(values)
        groups["rlnOpticsGroup"] += [str(number)] * len(spectrum)
    write_star(path, [StarTable(NOISE, _columns(spectra.in_use, spectra.length_A)), StarTable(GROUPS, groups)])


def read_noise(path: str | Path) -> NoiseSpectra:
    """Read what `write_noise` wrote. Raises DataError for a block, a column or a number that is missing or wrong."""
    star = read_star(path)
    table, groups = star.table(NOISE), star.table(GROUPS)
    if table.n_rows < 2:
        raise DataError(path, expected=f"two shells or more in data_{NOISE}", found=f"{table.n_rows}")
    in_use = float_column(star.path, table, VARIANCE, lowest=0)
    frequency = float_column(star.path, table, FREQUENCY, lowest=0)
    group = integer_column(star.path, groups, "rlnOpticsGroup")
    variance = float_column(star.path, groups, VARIANCE, lowest=0)
    return NoiseSpectra(
        in_use,
        {int(number): variance[group == number] for number in np.unique(group)},
        float((len(in_use) - 1) / frequency[-1]),
    )


def _columns(spectrum: npt.NDArray[np.float64], length_A: float) -> dict[str, list[str]]:
    shells = range(len(spectrum))
    return {
        "rlnSpectralIndex": [str(shell) for shell in shells],
        FREQUENCY: [f"{shell / length_A:.9f}" for shell in shells],
        VARIANCE: [f"{value:.6e}" for value in spectrum],
    }
