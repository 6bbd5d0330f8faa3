"""The noise spectra of a run's images as a STAR file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hoarfrost.errors import DataError
from hoarfrost.io.star import StarTable, read_star, write_star
from hoarfrost.io.star_columns import Floats, float_column, integer_column

NOISE, GROUPS, REFINED = "noise", "noise_optics_groups", "noise_refined"
VARIANCE = "hoarfrostNoiseVariance"
FREQUENCY = "rlnResolution"


@dataclass(frozen=True)
class NoiseSpectra:
    """Variance of the noise in shells 0, 1, … of normalised images, (shells,) float64; white noise has 1 in each.

    `in_use` is that of the background of all images, by which the run divides them, and `of_groups` that of each optics
    group's; `refined` is what refinement took it for in each group, none without. Shell s is at s / `length_A`, in 1/Å.
    """

    in_use: Floats
    of_groups: Mapping[int, Floats]
    length_A: float
    refined: Mapping[int, Floats] = field(default_factory=dict)


def write_noise(path: str | Path, spectra: NoiseSpectra) -> None:
    """Write block data_noise with a row a shell, and data_noise_optics_groups with a row a group and shell.

    So is data_noise_refined, where there was a refinement. Raises UsageError where the file cannot be written.
    """
    length_A = spectra.length_A
    tables = [StarTable(NOISE, _columns(spectra.in_use, length_A)), _of_groups(GROUPS, spectra.of_groups, length_A)]
    if spectra.refined:
        tables.append(_of_groups(REFINED, spectra.refined, length_A))
    write_star(path, tables)


def read_noise(path: str | Path) -> NoiseSpectra:
    """Read what `write_noise` wrote. Raises DataError for a block, a column or a number that is missing or wrong."""
    star = read_star(path)
    for name in (NOISE, GROUPS):
        if name not in star.tables:
            raise DataError(path, expected=f"a block data_{name}", found="none")
    table, groups = star.tables[NOISE], star.tables[GROUPS]
    if table.n_rows < 2:
        raise DataError(path, expected=f"two shells or more in data_{NOISE}", found=f"{table.n_rows}")
    in_use = float_column(star.path, table, VARIANCE, lowest=0)
    frequency = float_column(star.path, table, FREQUENCY, lowest=0)
    length_A = float((len(in_use) - 1) / frequency[-1])
    refined = star.tables.get(REFINED)
    return NoiseSpectra(
        in_use, _read_groups(star.path, groups), length_A, {} if refined is None else _read_groups(star.path, refined)
    )


def _read_groups(path: Path, table: StarTable) -> dict[int, Floats]:
    group = integer_column(path, table, "rlnOpticsGroup")
    variance = float_column(path, table, VARIANCE, lowest=0)
    return {int(number): variance[group == number] for number in np.unique(group)}


def _of_groups(name: str, of_groups: Mapping[int, Floats], length_A: float) -> StarTable:
    columns: dict[str, list[str]] = {"rlnOpticsGroup": []}
    for number, spectrum in of_groups.items():
        for column, values in _columns(spectrum, length_A).items():
            columns.setdefault(column, []).extend(values)
        columns["rlnOpticsGroup"] += [str(number)] * len(spectrum)
    return StarTable(name, columns)


def _columns(spectrum: npt.NDArray[np.float64], length_A: float) -> dict[str, list[str]]:
    shells = range(len(spectrum))
    return {
        "rlnSpectralIndex": [str(shell) for shell in shells],
        FREQUENCY: [f"{shell / length_A:.9f}" for shell in shells],
        VARIANCE: [f"{value:.6e}" for value in spectrum],
    }
