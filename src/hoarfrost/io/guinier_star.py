"""The Guinier plot of a sharpened map as a STAR file, with the columns of RELION's postprocess.star."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hoarfrost.io.star import StarTable, read_star, write_star
from hoarfrost.io.star_columns import Floats, float_column

# What RELION writes for the logarithm of nothing.
LOG_OF_NOTHING = -99.0


@dataclass(frozen=True)
class GuinierCurves:
    """By shell, (shells,) float64: s² in 1/Å², ln F, ln(F C), and the line a − B s² / 4; see `evaluation.sharpen`."""

    squared: Floats
    log_amplitude: Floats
    weighted: Floats
    intercept: float
    b_factor_A2: float


def write_guinier(path: str | Path, curves: GuinierCurves) -> None:
    """Write blocks data_general, with the line and the B-factor in Å², and data_guinier, with a row a shell.

    Raises UsageError where the file cannot be written.
    """
    slope = -curves.b_factor_A2 / 4
    general = {
        "rlnFittedInterceptGuinierPlot": [f"{curves.intercept:.6f}"],
        "rlnFittedSlopeGuinierPlot": [f"{slope:.6f}"],
        # A negative one sharpens, as on RELION's command line.
        "rlnBfactorUsedForSharpening": [f"{-curves.b_factor_A2:.6f}"],
    }
    columns = {
        "rlnResolutionSquared": curves.squared,
        "rlnLogAmplitudesOriginal": curves.log_amplitude,
        "rlnLogAmplitudesWeighted": curves.weighted,
        "rlnLogAmplitudesIntercept": curves.intercept + slope * curves.squared,
    }
    texts = {name: _texts(values) for name, values in columns.items()}
    write_star(path, [StarTable("general", general, is_loop=False), StarTable("guinier", texts)])


def read_b_factor_A2(path: str | Path) -> float:
    """B in Å², positive where amplitudes fall off. Raises DataError for a block or a number that is missing."""
    star = read_star(path)
    return -float(float_column(star.path, star.table("general"), "rlnBfactorUsedForSharpening")[0])


def _texts(values: Floats) -> list[str]:
    return [f"{value:.8f}" for value in np.nan_to_num(values, nan=LOG_OF_NOTHING, neginf=LOG_OF_NOTHING).tolist()]
