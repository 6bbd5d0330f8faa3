"""STAR files as RELION writes them: named blocks of text columns, read strictly by line, written back unchanged.

A row of a table is a line of so many words as the table has columns, as RELION has it, whatever the words begin with:
names like ``data_1.mrc`` and ``#7.mrc`` need no quotes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hoarfrost.errors import DataError
from hoarfrost.io.atomic import atomic_output
from hoarfrost.io.kinds import reading, refuse_other_kinds
from hoarfrost.io.text_column import TextBuilder, TextColumn

_TOKEN = re.compile(rb"'[^']*'(?=\s|$)|\"[^\"]*\"(?=\s|$)|[^\s]+")
_LABEL = re.compile(rb"_(\S+)(?:\s+#.*)?\s*")
# Words that other readers take for syntax are written in quotes.
_BARE = re.compile(r"(?!data_|save_|loop_|stop_|global_)[^\s\"#$';\[\]_][^\s]*", re.IGNORECASE)
_NEVER = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class StarTable:
    """One block: column names without the leading underscore, each with its values as text, quotes removed.

    Every column has the same length. `is_loop` is False for a block of single ``_name value`` lines (one
    row).
    """

    name: str
    columns: Mapping[str, Sequence[str]]
    is_loop: bool = True

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()), []))


@dataclass(frozen=True)
class StarFile:
    """All blocks of a STAR file in their order, by name (without ``data_``)."""

    path: Path
    tables: dict[str, StarTable]

    def table(self, name: str) -> StarTable:
        """The block ``data_name``. Raises DataError where there is none."""
        if name not in self.tables:
            raise DataError(self.path, expected=f"a block data_{name}", found="none")
        return self.tables[name]


def read_star(path: str | Path) -> StarFile:
    """Read every block of a STAR file, of text in UTF-8.

    Raises DataError with the line where the file is missing, is of another kind, breaks the syntax or has a row with
    too few or too many values, as a file cut in the middle of a row has. A file cut exactly between two rows cannot be
    told.
    """
    path = Path(path)
    tables: dict[str, StarTable] = {}
    with reading(path, "STAR file"), path.open("rb") as file:
        refuse_other_kinds(file.read(256), path, "a STAR file")
        file.seek(0)
        for table in _Reader(path, file).tables():
            if table.name in tables:
                raise DataError(path, expected="each block once", found=f"duplicate block name data_{table.name}")
            tables[table.name] = table
    if not tables:
        raise DataError(path, expected="a STAR file with data_ blocks", found="an empty file")
    return StarFile(path, tables)


class _Reader:
    """The lines of a STAR file, one after the other, of which the next can be looked at."""

    def __init__(self, path: Path, lines: Iterable[bytes]) -> None:
        self._path, self._lines = path, iter(lines)
        self.number = 0
        self._after_blank = False
        self._line = b""
        self._advance()

    def tables(self) -> Iterator[StarTable]:
        while self._skip_to_content():
            word = self._line.split()[0]
            if word[:5].lower() != b"data_":
                raise self._fault("a line that begins with data_")
            self._advance()
            yield self._table(word[5:].decode())

    def _table(self, name: str) -> StarTable:
        table: StarTable | None = None
        singles: dict[str, list[str]] = {}
        while self._skip_to_content():
            words = self._line.split()
            if words[0][:5].lower() == b"data_":
                break
            if words[0].lower() == b"loop_":
                if table is not None or singles:
                    raise DataError(self._path, expected=f"one table in block data_{name}", found="another")
                self._advance()
                table = StarTable(name, self._loop())
            elif words[0].startswith(b"_"):
                if table is not None:
                    raise DataError(self._path, expected=f"one table in block data_{name}", found="single values")
                values = [_unquoted(word) for word in self._words()]
                if len(values) < 2 or (len(values) > 2 and not values[2].startswith(b"#")):
                    raise self._fault(f"one value for {words[0].decode()}")
                singles[self._name(words[0][1:], singles)] = [values[1].decode()]
                self._advance()
            else:
                raise self._fault("loop_, _name or data_")
        return StarTable(name, singles, is_loop=False) if table is None else table

    def _loop(self) -> dict[str, Sequence[str]]:
        columns: dict[str, TextBuilder] = {}
        while self._line and (self._is_nothing(len(columns)) or (label := _LABEL.fullmatch(self._line)) is not None):
            if not self._is_nothing(len(columns)) and label is not None:
                columns[self._name(label[1], columns)] = TextBuilder()
            self._advance()
        if not columns:
            raise self._fault("the names of columns after loop_")
        while (words := self._row(len(columns))) is not None:
            for column, word in zip(columns.values(), words, strict=True):
                column.append(word)
        return {name: TextColumn(column) for name, column in columns.items()}

    def _row(self, width: int) -> list[bytes] | None:
        """The words of the next row, without quotes, or None at the table's end."""
        while self._line and self._is_nothing(width):
            self._after_blank = True
            self._advance(keeps=True)
        if not self._line or self._ends_table(width):
            return None
        words = self._words()
        comment = next((place for place, word in enumerate(words) if place >= width and word.startswith(b"#")), None)
        words = words[:comment]
        number, found = self.number, len(words)
        self._after_blank = False
        self._advance()
        if found == width:
            return [_unquoted(word) for word in words]
        if self._line.startswith(b";"):
            raise DataError(self._path, expected=f"values of one line on line {number}", found="a text over several")
        hint = "a name with a blank in it has to be in quotes" if found > width else None
        if found < width and not self._skip_to_content():
            hint = "the file may be cut short; copy it again"
        raise DataError(self._path, expected=f"{width} values on line {number}", found=f"{found}", hint=hint)

    def _is_nothing(self, width: int) -> bool:
        """Whether the line is blank or a comment: one that begins with # is a row if it has as many words as one."""
        begins = self._line.lstrip()[:1]
        return not begins or (begins == b"#" and not self._may_be_row(width))

    def _ends_table(self, width: int) -> bool:
        words = self._line.split()
        begins = words[0].lower()
        if begins == b"loop_" or (begins.startswith(b"data_") and len(words) == 1):
            return True
        return begins.startswith((b"data_", b"_")) and not self._may_be_row(width)

    def _may_be_row(self, width: int) -> bool:
        """Whether the line can be a row whatever it begins with; after a blank line it cannot, as RELION has it."""
        return not self._after_blank and len(_TOKEN.findall(self._line)) == width

    def _words(self) -> list[bytes]:
        line = self._line
        if b'"' not in line and b"'" not in line:
            return line.split()
        words: list[bytes] = _TOKEN.findall(line)
        for word in words:
            if word[:1] in (b'"', b"'") and (len(word) < 2 or word[-1:] != word[:1]):
                raise DataError(self._path, expected=f"a closing quote on line {self.number}", found=repr(_short(word)))
        return words

    def _skip_to_content(self) -> bool:
        """Go to the next line that says something; False at the end of the file."""
        while self._line and (not self._line.strip() or self._line.lstrip().startswith(b"#")):
            self._advance()
        return bool(self._line)

    def _advance(self, *, keeps: bool = False) -> None:
        if not keeps:
            self._after_blank = False
        self._line = next(self._lines, b"")
        self.number += 1
        if self.number == 1:
            self._line = self._line.removeprefix(b"\xef\xbb\xbf")
        line = self._line.rstrip(b"\r\n")
        if _NEVER.search(line):
            raise DataError(self._path, expected=f"text on line {self.number}", found="bytes that are no text")
        try:
            line.decode()
        except UnicodeDecodeError:
            raise DataError(
                self._path, expected=f"text in UTF-8 on line {self.number}", found="another encoding"
            ) from None

    def _name(self, label: bytes, columns: Mapping[str, object]) -> str:
        name = label.decode()
        if name in columns:
            raise DataError(self._path, expected="each column once", found=f"a duplicate _{name} on line {self.number}")
        return name

    def _fault(self, expected: str) -> DataError:
        found = repr(_short(self._line)) if self._line else "the end of the file"
        return DataError(self._path, expected=f"{expected} on line {self.number}", found=found)


def _short(line: bytes) -> str:
    return line.decode(errors="replace").strip()[:40]


def _unquoted(word: bytes) -> bytes:
    return word[1:-1] if word[:1] in (b'"', b"'") else word


def write_star(path: str | Path, tables: Iterable[StarTable]) -> None:
    """Write blocks in RELION's layout, whole or not at all: digits as they are, words with spaces in quotes.

    A file with a ``data_optics`` block gets RELION's ``# version 30001`` lines, by which RELION knows the 3.1
    format. Raises ValueError for columns of unequal length or a value that STAR cannot hold, UsageError where
    the file cannot be written.
    """
    tables = list(tables)
    version = "# version 30001\n\n" if any(table.name == "optics" for table in tables) else ""
    with atomic_output(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for table in tables:
            file.write(f"\n{version}")
            file.writelines(_table_lines(table))
            file.write("\n")


def can_hold(value: str) -> bool:
    """Whether a STAR file can hold a text: one line, and not both kinds of quotes beside a blank."""
    try:
        _quoted(value)
    except ValueError:
        return False
    return True


def _table_lines(table: StarTable) -> Iterator[str]:
    lengths = {len(values) for values in table.columns.values()}
    if len(lengths) > 1 or (not table.is_loop and lengths not in ({1}, set())):
        raise ValueError(f"the columns of block data_{table.name} have lengths {sorted(lengths)}")
    yield f"data_{table.name}\n\n"
    if not table.is_loop:
        yield from (f"_{name} {_quoted(values[0])}\n" for name, values in table.columns.items())
        return
    yield "loop_\n"
    yield from (f"_{name} #{number}\n" for number, name in enumerate(table.columns, start=1))
    widths = [max((len(_quoted(value)) for value in values), default=0) for values in table.columns.values()]
    for row in zip(*table.columns.values(), strict=True):
        yield " ".join(_quoted(value).rjust(width) for value, width in zip(row, widths, strict=True)) + "\n"


def _quoted(value: str) -> str:
    if value.isascii() and value.isprintable() and _BARE.fullmatch(value):
        return value
    try:
        raw = value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a STAR file cannot hold {value!r}: only text of one line") from error
    if _NEVER.search(raw) or b"\n" in raw:
        raise ValueError(f"a STAR file cannot hold {value!r}: only text of one line")
    if len(raw.split()) == 1 and raw == raw.strip() and _BARE.fullmatch(value.replace("\xa0", "-")):
        return value
    if '"' not in value:
        return f'"{value}"'
    if "'" not in value:
        return f"'{value}'"
    raise ValueError(f"a STAR file cannot hold {value!r}: it has both kinds of quotes")
