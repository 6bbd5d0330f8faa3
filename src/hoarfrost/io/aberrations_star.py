"""Aberrations of particles in RELION's STAR files: beam tilt and Zernike coefficients, of optics groups or of rows."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hoarfrost.errors import DataError
from hoarfrost.io.star import StarTable
from hoarfrost.io.star_columns import Floats, Integers, float_column

TILTS = ("rlnBeamTiltX", "rlnBeamTiltY")
ODD, EVEN = "rlnOddZernike", "rlnEvenZernike"


@dataclass(frozen=True)
class AberrationTable:
    """Aberrations that n particles have in common: those of particle i are of `group[i]`, int64 (n,) from 0.

    Float64, of each group: `beam_tilt_mrad` (g, 2), and coefficients in radians `odd` (g, m) and `even` (g, m).
    """

    group: Integers
    beam_tilt_mrad: Floats
    odd: Floats
    even: Floats

    def told(self) -> Iterator[str]:
        """What the file tells of, in words."""
        for values, what in ((self.beam_tilt_mrad, "beam tilt"), (self.odd, "odd aberrations"),
                             (self.even, "even aberrations")):  # fmt: skip
            if values.any():
                yield what


def read_aberrations(path: Path, tables: list[StarTable], rows: list[Integers]) -> AberrationTable:
    """Those in a file's blocks, the first block that has a column before the others; `rows` (n,) of each, by particle.

    Raises DataError with the row of a value that is no number, or no list of numbers.
    """
    n = len(rows[0])
    columns: list[Floats] = []
    for name in (*TILTS, ODD, EVEN):
        found = next(((table, of) for table, of in zip(tables, rows, strict=True) if name in table.columns), None)
        if found is None:
            columns.append(np.zeros((n, 1 if name in TILTS else 0)))
            continue
        table, of_particles = found
        values = float_column(path, table, name)[:, None] if name in TILTS else _lists(path, table, name)
        columns.append(values[of_particles])
    distinct, group = np.unique(np.concatenate(columns, axis=1), axis=0, return_inverse=True)
    ends = np.cumsum([column.shape[1] for column in columns])
    return AberrationTable(group.reshape(-1), distinct[:, :2], distinct[:, 2 : ends[2]], distinct[:, ends[2] : ends[3]])


def _lists(path: Path, table: StarTable, name: str) -> Floats:
    """Lists like [0.1,-2] of each row, float64 (rows, m), zeros where one is shorter than others."""
    found = [_numbers(path, row, name, text) for row, text in enumerate(table.columns[name])]
    lists = np.zeros((len(found), max(map(len, found), default=0)))
    for row, numbers in enumerate(found):
        lists[row, : len(numbers)] = numbers
    return lists


def _numbers(path: Path, row: int, name: str, text: str) -> list[float]:
    try:
        numbers = [float(number) for number in json.loads(text)]
    except (ValueError, TypeError):
        numbers = [np.nan]
    if not np.isfinite(numbers).all():
        raise DataError(path, row=row + 1, expected=f"numbers like [0.1,-2] in {name}", found=repr(text))
    return numbers
