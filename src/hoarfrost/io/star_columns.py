"""Numbers out of the text columns of a STAR table, each fault told with its row."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hoarfrost.errors import DataError
from hoarfrost.io.columns import FIELD_OF_COLUMN
from hoarfrost.io.star import StarTable

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PASS_THROUGH_HINT = (
    "it may be in the pass-through file of the same job: "
    "hoarfrost convert particles.cs passthrough.cs particles.star, then use the STAR file"
)


def text_column(path: Path, table: StarTable, name: str, hint: str | None = None) -> Sequence[str]:
    """Values of a column as text. Raises DataError where the table has none such, of a .cs file with its field."""
    if name not in table.columns:
        if path.suffix.lower() == ".cs" and name in FIELD_OF_COLUMN:
            raise DataError(path, expected=f"a field {FIELD_OF_COLUMN[name]}", found="none", hint=PASS_THROUGH_HINT)
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
    unit_hint: str | None = None,
) -> Floats:
    """Values of a column, float64 (n,), within [lowest, highest]; `default` for a missing column.

    Raises DataError with the row (from 1) of the first value that is not a number, not finite or out of range. `hint`
    is for a column that is missing, `unit_hint` for a number that is out of range.
    """
    if default is not None and name not in table.columns:
        return np.full(table.n_rows, default)
    words = text_column(path, table, name, hint)
    values = parsed(words)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= lowest) & (values <= highest)))
    if bad.size:
        row, limits = int(bad[0]), _limits(lowest, highest)
        raise DataError(
            path,
            row=row + 1,
            expected=f"a number{limits} in {name} of data_{table.name}",
            found=repr(words[row]),
            hint=unit_hint if math.isfinite(values[row]) else None,
        )
    return values


def refuse_rows(
    path: Path, is_bad: npt.NDArray[np.bool_], expected: str, found: Callable[[int], str], hint: str | None = None
) -> None:
    """Raise DataError for the first row (n,) that is bad, if any is; `found` tells what it holds, rows from 0."""
    bad = np.flatnonzero(is_bad)
    if bad.size:
        row = int(bad[0])
        raise DataError(path, row=row + 1, expected=expected, found=found(row), hint=hint)


def integer_column(path: Path, table: StarTable, name: str, hint: str | None = None) -> Integers:
    """Values of a column, int64 (n,). Raises DataError with the row of a value that is not a whole number."""
    values = float_column(path, table, name, lowest=-(2.0**53), highest=2.0**53, hint=hint)
    words = table.columns[name]
    refuse_rows(path, values != np.round(values), f"a whole number in {name}", lambda row: repr(words[row]))
    return values.astype(np.int64)


def numbers_if_any(table: StarTable, name: str) -> Floats | None:
    """Values of a column that nothing depends on, float64 (n,); None where it is missing or one is no number."""
    if name not in table.columns:
        return None
    values = parsed(table.columns[name])
    return values if bool(np.isfinite(values).all()) else None


def parsed(words: Sequence[str]) -> Floats:
    """The numbers that texts hold, float64 (n,), NaN for those that are none."""
    try:
        return np.array(list(words), dtype=np.float64)
    except (ValueError, OverflowError):
        return np.array([_float_or_nan(word) for word in words])


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
