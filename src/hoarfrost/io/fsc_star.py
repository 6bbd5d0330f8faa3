"""The FSC curves of two half maps as a STAR file, with the columns of RELION's postprocess.star."""

from dataclasses import dataclass
from pathlib import Path

from hoarfrost.errors import DataError
from hoarfrost.io.star import StarTable, read_star, write_star
from hoarfrost.io.star_columns import Floats, float_column

COLUMNS = {
    "corrected": "rlnFourierShellCorrelationCorrected",
    "unmasked": "rlnFourierShellCorrelationUnmaskedMaps",
    "masked": "rlnFourierShellCorrelationMaskedMaps",
    "randomised": "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
}
# What RELION writes for the resolution of shell 0, which has none.
RESOLUTION_OF_DC_A = 999.0


@dataclass(frozen=True)
class FscCurves:
    """FSC curves in shells 0, 1, …, each (shells,) float64; shell s is at s / length_A, in 1/Å.

    `length_A` is that of the box; `resolution_A` is what the run claims, `band_limit_A` the finest it can.
    """

    unmasked: Floats
    masked: Floats
    randomised: Floats
    corrected: Floats
    length_A: float
    resolution_A: float
    band_limit_A: float

    @property
    def is_reached(self) -> bool:
        """Whether the FSC falls below its threshold within the band, beyond the rounding of the file."""
        return self.resolution_A > self.band_limit_A * (1 + 1e-4)


def write_fsc(path: str | Path, curves: FscCurves) -> None:
    """Write blocks data_general, with the resolution and the band limit, and data_fsc, with a row a shell.

    Raises UsageError where the file cannot be written.
    """
    general = {
        "rlnFinalResolution": [f"{curves.resolution_A:.6f}"],
        "hoarfrostBandLimit": [f"{curves.band_limit_A:.6f}"],
    }
    shells = range(len(curves.unmasked))
    columns = {
        "rlnSpectralIndex": [str(shell) for shell in shells],
        "rlnResolution": [f"{shell / curves.length_A:.6f}" for shell in shells],
        "rlnAngstromResolution": [f"{curves.length_A / s if s else RESOLUTION_OF_DC_A:.6f}" for s in shells],
    }
    for name, column in COLUMNS.items():
        columns[column] = [f"{value:.6f}" for value in getattr(curves, name)]
    write_star(path, [StarTable("general", general, is_loop=False), StarTable("fsc", columns)])


def read_fsc(path: str | Path) -> FscCurves:
    """Read what `write_fsc` wrote. Raises DataError for a block, a column or a number that is missing or wrong."""
    star = read_star(path)
    general, table = star.table("general"), star.table("fsc")
    if table.n_rows < 2:
        raise DataError(path, expected="two shells or more in data_fsc", found=f"{table.n_rows}")
    curves = {name: float_column(star.path, table, column) for name, column in COLUMNS.items()}
    length_A = float_column(star.path, table, "rlnAngstromResolution", lowest=0)[1]
    resolution_A, band_limit_A = (
        float(float_column(star.path, general, name, lowest=0)[0])
        for name in ("rlnFinalResolution", "hoarfrostBandLimit")
    )
    return FscCurves(**curves, length_A=float(length_A), resolution_A=resolution_A, band_limit_A=band_limit_A)
