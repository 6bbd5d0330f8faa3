"""cryoSPARC's .cs files: NumPy structured arrays, one row a particle, read without pickle and checked first.

Fields are named like ``ctf/df1_A``. Other kinds of file that cryoSPARC and its tools write under the same or a similar
name are recognised, and the user is told what to do with them.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from hoarfrost.errors import DataError
from hoarfrost.io.atomic import atomic_output
from hoarfrost.io.kinds import reading, refuse_other_kinds
from hoarfrost.io.star import can_hold
from hoarfrost.io.star_columns import Floats, Integers, refuse_rows

Records = npt.NDArray[np.void]

NUMPY_MAGIC = b"\x93NUMPY"
# The first byte differs between releases of cryosparc-tools.
STREAM_MAGICS = (b"\x94CSDAT", b"\x95CSDAT")
PARQUET_MAGIC = b"PAR1"
# NumPy's own limit, 10 kB, is below what a hundred fields take.
LARGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class CsTable:
    """The rows of a .cs file, a structured array (n,), with checks on what is taken from them.

    `files` tells the file of each field that did not come from `path` but was joined to it.
    """

    path: Path
    records: Records
    files: dict[str, Path]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def names(self) -> tuple[str, ...]:
        """The fields, in their order."""
        return self.records.dtype.names or ()

    def numbers(
        self,
        name: str,
        width: int = 1,
        *,
        default: float | None = None,
        lowest: float = -math.inf,
        highest: float = math.inf,
        is_used: bool = True,
    ) -> Floats:
        """A numeric field, float64 (n,), or (n, width) for a wider one; `default` for a field that is missing.

        Raises DataError with the row (from 1) of the first number that is not finite or out of range, unless nothing
        depends on it and `is_used` is False.
        """
        shape = (len(self),) if width == 1 else (len(self), width)
        if default is not None and name not in self.names:
            return np.full(shape, default)
        column = self._column(name, None)
        if column.dtype.kind not in "fiub" or column.shape != shape:
            expected = "numbers" if width == 1 else f"{width} numbers a particle"
            raise DataError(self._file(name), expected=f"{expected} in {name}", found=_described(column))
        with np.errstate(invalid="ignore"):  # signalling NaN
            values = column.astype(np.float64)
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= lowest) & (values <= highest)).reshape(len(self), -1))
        if bad.size and is_used:
            row = int(bad[0]) // width
            limits = (
                "" if math.isinf(lowest) else f" from {lowest:g}" + ("" if math.isinf(highest) else f" to {highest:g}")
            )
            found = ", ".join(f"{value:g}" for value in np.atleast_1d(values[row]))
            raise DataError(self._file(name), row=row + 1, expected=f"finite numbers{limits} in {name}", found=found)
        return values

    def whole_numbers(self, name: str, hint: str | None = None) -> Integers:
        """A field of whole numbers from 0 up, int64 (n,). Raises DataError for any other."""
        column = self._column(name, hint)
        if column.dtype.kind not in "iu" or column.shape != (len(self),):
            raise DataError(self._file(name), expected=f"whole numbers in {name}", found=_described(column))
        is_bad = (column < 0) | (column > np.iinfo(np.int64).max)
        refuse_rows(self._file(name), is_bad, f"a number from 0 in {name}", lambda row: str(column[row]))
        return column.astype(np.int64)

    def texts(self, name: str, hint: str | None = None) -> list[str]:
        """A field of texts. Raises DataError where it is missing or holds something else."""
        column = self._column(name, hint)
        if column.dtype.kind not in "SU" or column.shape != (len(self),):
            raise DataError(self._file(name), expected=f"texts in {name}", found=_described(column))
        try:
            texts = [text if isinstance(text, str) else text.decode("utf-8") for text in column.tolist()]
        except (UnicodeDecodeError, ValueError) as error:  # NumPy's own texts may hold what is no character
            raise DataError(self._file(name), expected=f"texts in UTF-8 in {name}", found="other bytes") from error
        bad = next((row for row, text in enumerate(texts) if not can_hold(text)), None)
        if bad is not None:
            expected = f"a text of one line, without both kinds of quotes, in {name}"
            raise DataError(self._file(name), row=bad + 1, expected=expected, found=ascii(texts[bad])[:60])
        return texts

    def _column(self, name: str, hint: str | None) -> npt.NDArray[Any]:
        if name not in self.names:
            hint = None if self.files else hint  # the pass-through file is there
            raise DataError(self.path, expected=f"a field {name}", found="none", hint=hint)
        column: npt.NDArray[Any] = self.records[name]
        return column

    def _file(self, name: str) -> Path:
        return self.files.get(name, self.path)


def read_cs(path: str | Path) -> CsTable:
    """Read a .cs file.

    Raises DataError where it is missing, is another kind of file, holds Python objects, is not as long as its header
    claims, or has no rows.
    """
    path = Path(path)
    with reading(path, ".cs file"), path.open("rb") as file:
        if path.suffix.lower() == ".csg":
            raise _group_file(path)
        _refuse_other_files(path, file.read(256))
        file.seek(0)
        records = _read_array(path, file)
    if len(records) == 0:
        raise DataError(path, expected="at least one particle", found="none")
    return CsTable(path, records, {})


def joined_by_uid(first: CsTable, second: CsTable) -> CsTable:
    """The rows of `first` with the fields that only `second`, a pass-through file, has, matched by ``uid``.

    Raises DataError where either has no uid or one twice, or `second` lacks a particle of `first`.
    """
    keys = []
    for table in (first, second):
        if "uid" not in table.names or table.records["uid"].dtype.kind not in "iu" or table.records["uid"].ndim != 1:
            raise DataError(table.path, expected="a field uid, by which two .cs files are matched", found="none")
        uid = table.records["uid"]
        if len(np.unique(uid)) != len(uid):
            raise DataError(table.path, expected="each uid once", found="one twice")
        keys.append(uid.astype(np.uint64))
    order = np.argsort(keys[1])
    place = np.searchsorted(keys[1], keys[0], sorter=order).clip(max=len(order) - 1)
    rows = order[place]
    missing = np.flatnonzero(keys[1][rows] != keys[0])
    if missing.size:
        found = f"{missing.size} of {len(first)} missing, the first in row {missing[0] + 1} of {first.path.name}"
        hint = "give the pass-through file of the same job"
        raise DataError(second.path, expected=f"the particles of {first.path.name}", found=found, hint=hint)
    new = [name for name in second.names if name not in first.names]
    records = with_fields(first.records, {name: second.records[name][rows] for name in new})
    return CsTable(first.path, records, {**first.files, **dict.fromkeys(new, second.path)})


def with_fields(records: Records, new: Mapping[str, npt.NDArray[Any]]) -> Records:
    """The rows with these fields, each (n, …): in the place of those of the same names, the others behind them."""
    fields = {name: records[name] for name in records.dtype.names or ()} | {**new}
    kinds = [(name, values.dtype, values.shape[1:]) for name, values in fields.items()]
    changed = np.empty(len(records), np.dtype(kinds))
    for name, values in fields.items():
        changed[name] = values
    return changed


def write_cs(path: str | Path, records: Records) -> None:
    """Write a structured array as a .cs file, whole or not at all. Raises UsageError where that cannot be done."""
    with atomic_output(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array(file, records, allow_pickle=False)


def _refuse_other_files(path: Path, start: bytes) -> None:
    expected = "a .cs file in NumPy's format"
    if start.startswith(STREAM_MAGICS):
        raise DataError(
            path,
            expected=expected,
            found="cryoSPARC's compressed stream (CSDAT)",
            hint=f'save it again with cryosparc-tools: Dataset.load("{path.name}").save("numpy_{path.name}")',
        )
    if start.startswith(PARQUET_MAGIC):
        hint = "export the particles from cryoSPARC as a .cs file, or save them so with cryosparc-tools"
        raise DataError(path, expected=expected, found="a Parquet file", hint=hint)
    if start.startswith(NUMPY_MAGIC):
        return
    refuse_other_kinds(start, path, expected)
    if start.lstrip().startswith((b"data_", b"#", b"loop_")):
        raise DataError(path, expected=expected, found="a STAR file", hint="give it a name that ends in .star")
    if start.lstrip()[:1].isalpha():  # a group file under another name is YAML text
        raise _group_file(path)
    raise DataError(path, expected=expected, found="something else" if start else "an empty file")


def _group_file(path: Path) -> DataError:
    hint = "give the .cs file that it names after 'metafile:', and the pass-through .cs file if it names two"
    return DataError(path, expected="a .cs file", found="text, as in cryoSPARC's group file (.csg)", hint=hint)


def _read_array(path: Path, file: IO[bytes]) -> Records:
    try:
        shape, dtype = _header(file)
    except Exception as error:  # NumPy evaluates the header as Python's literals, which fails in a dozen ways
        raise DataError(path, expected="a header of NumPy's file format", found="a broken one") from error
    if dtype.hasobject:
        hint = "save it again with cryosparc-tools; objects are not read, as they could run code"
        raise DataError(path, expected="plain numbers and texts", found="Python objects", hint=hint)
    if dtype.names is None or len(shape) != 1:
        raise DataError(path, expected="a table of named fields", found=f"an array of shape {shape} without")
    if shape[0] == 0 or dtype.itemsize == 0:
        return np.empty(0, dtype)
    start = file.tell()
    held_bytes = file.seek(0, 2) - start
    claimed_bytes = shape[0] * dtype.itemsize
    if held_bytes != claimed_bytes:
        raise DataError(
            path,
            expected=f"{claimed_bytes} bytes for {shape[0]} particles",
            found=f"{held_bytes}",
            hint="the file is cut short; copy it again" if held_bytes < claimed_bytes else None,
        )
    file.seek(start)
    return np.frombuffer(file.read(claimed_bytes), dtype)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers of Python 2, which are read all the same
        shape, _, dtype = read[np.lib.format.read_magic(file)](file, max_header_size=LARGEST_HEADER)
    return shape, dtype


def _described(column: npt.NDArray[Any]) -> str:
    kind = {"f": "numbers", "i": "whole numbers", "u": "whole numbers", "S": "texts", "U": "texts"}.get(
        column.dtype.kind, column.dtype.name
    )
    return kind if column.ndim == 1 else f"{' × '.join(str(n) for n in column.shape[1:])} {kind} a particle"
