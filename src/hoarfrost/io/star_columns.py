"""Numbers out of the text columns of a STAR table, each fault told with its row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hoarfrost.errors import DataError
from hoarfrost.io.star import StarTable

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def text_column(path: Path, table: StarTable, name: str, hint: str | None = None) -> Sequence[str]:
    """Values of a column as text. Raises DataError where the table has no such column."""
    if name not in table.columns:
        raise DataError(path, expected=f"a column {name} in data_{table.name}", found="none", hint=hint)
    return table.columns[name]


def float_column(
    path: Path,
    table: StarTable,
    name: str,
    *,
    default: float | None = None,
    lowest: float = -math.inf,
    highest: float = math.inf,
    hint: str | None = None,
) -> Floats:
    """Values of a column, float64 (n,), within [lowest, highest]; `default` for a missing column.

    Raises DataError with the row (from 1) of the first value that is not a number, not finite or out of
    range.
    """
    if default is not None and name not in table.columns:
        return np.full(table.n_rows, default)
    words = text_column(path, table, name, hint)
    try:
        values = np.array(list(words), dtype=np.float64)
    except ValueError:
        values = np.array([_float_or_nan(word) for word in words])
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= lowest) & (values <= highest)))
    if bad.size:
        row, limits = int(bad[0]), _limits(lowest, highest)
        raise DataError(
            path,
            row=row + 1,
            expected=f"a number{limits} in {name} of data_{table.name}",
            found=repr(words[row]),
            hint=hint,
        )
    return values


def integer_column(path: Path, table: StarTable, name: str, hint: str | None = None) -> Integers:
    """Values of a column, int64 (n,). Raises DataError with the row of a value that is not a whole number."""
    values = float_column(path, table, name, lowest=-(2.0**53), highest=2.0**53, hint=hint)
    broken = np.flatnonzero(values != np.round(values))
    if broken.size:
        row = int(broken[0])
        found = repr(table.columns[name][row])
        raise DataError(path, row=row + 1, expected=f"a whole number in {name}", found=found, hint=hint)
    return values.astype(np.int64)


def _limits(lowest: float, highest: float) -> str:
    if math.isinf(lowest) and math.isinf(highest):
        return ""
    if math.isinf(highest):
        return f" of at least {lowest:g}"
    return f" from {lowest:g} to {highest:g}"


def _float_or_nan(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan
