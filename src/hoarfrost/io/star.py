"""STAR files as RELION writes them: named blocks of text columns, read strictly, written back unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from gemmi import cif

from hoarfrost.errors import DataError
from hoarfrost.io.atomic import atomic_output
from hoarfrost.io.text_column import TextColumn

_TOKEN = re.compile(r"'[^']*'(?=\s|$)|\"[^\"]*\"(?=\s|$)|[^\s]+")
# A word that needs no quotes: no reserved beginning, and first any printable character but " # $ ' ; [ ] _
_BARE = re.compile(r"(?!data_|save_|loop_|stop_|global_)[!%&(-:<-Z\\^`-~][!-~]*", re.IGNORECASE)


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


def read_star(path: str | Path) -> StarFile:
    """Read every block of a STAR file.

    Raises DataError with the line where the file is missing, breaks the STAR syntax or has a row with too few
    or too many values, as a file cut in the middle of a row has. A file cut exactly between two rows cannot
    be told.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(path, expected="a STAR file", found="a folder" if path.is_dir() else "no such file")
    try:
        document = cif.read_file(str(path))
    except OSError as error:
        raise DataError(path, expected="a readable STAR file", found=error.strerror or str(error)) from error
    except (ValueError, RuntimeError) as error:  # gemmi's syntax errors
        raise _syntax_error(path, str(error)) from error
    if len(document) == 0:
        raise DataError(path, expected="a STAR file with data_ blocks", found="an empty file")
    return StarFile(path, {table.name: table for table in (_table(path, block) for block in document)})


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


def _table(path: Path, block: cif.Block) -> StarTable:
    name = block.name.strip()  # gemmi names the block of a bare `data_` with a space
    items = list(block)
    loops = [item.loop for item in items if item.loop is not None]
    if not loops:
        columns = {}
        for item in items:
            tag, value = cast("tuple[str, str]", item.pair)
            columns[tag[1:]] = [_unquoted(path, value)]
        return StarTable(name, columns, is_loop=False)
    if len(items) > 1:
        raise DataError(path, expected=f"one table in block data_{name}", found=f"{len(items)} loops and single values")
    # Column by column: Python's strings of all values at once would take several times the file.
    return StarTable(
        name, {tag[1:]: TextColumn(_unquoted(path, v) for v in block.find_loop(tag)) for tag in loops[0].tags}
    )


def _unquoted(path: Path, token: str) -> str:
    if token[0] == ";" and "\n" in token:
        raise DataError(path, expected="values of one line", found="a text over several lines")
    return token[1:-1] if token[0] in "'\"" else token


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
    if _BARE.fullmatch(value):
        return value
    if not (value.isascii() and value.replace("\t", "").isprintable()):
        raise ValueError(f"a STAR file cannot hold {value!r}: only plain text of one line")
    if '"' not in value:
        return f'"{value}"'
    if "'" not in value:
        return f"'{value}'"
    raise ValueError(f"a STAR file cannot hold {value!r}: it has both kinds of quotes")


def _syntax_error(path: Path, message: str) -> DataError:
    """Turn gemmi's message, `file:line:column(byte): what`, into ours."""
    where = re.search(r":(\d+)(?::\d+\(\d+\):| in )", message)
    if where is None:
        return DataError(path, expected="a STAR file", found=message.removeprefix(f"{path}: ").replace("\n", " "))
    line = int(where.group(1))
    if "Wrong number of values" in message:
        return _uneven_row(path, loop_line=line)
    what = message[where.end() :].strip().replace("\n", " ")
    hint = "the file may be damaged or cut short; only plain ASCII text can be read"
    return DataError(path, expected="STAR syntax", found=f"an error on line {line} ({what})", hint=hint)


def _uneven_row(path: Path, loop_line: int) -> DataError:
    """Find the line that gemmi only knows to be somewhere in the loop that starts on `loop_line`."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    width = 0
    for number, line in enumerate(lines[loop_line:], start=loop_line + 1):
        if not line.isascii():
            return DataError(path, expected=f"plain ASCII text on line {number}", found=repr(line))
        words = _TOKEN.findall(re.sub(r"(^|\s)#.*", "", line))
        if not words:
            continue
        if words[0].startswith("_"):
            width += 1
        elif len(words) != width:
            hint = "the file may be cut short; copy it again"
            return DataError(path, expected=f"{width} values on line {number}", found=f"{len(words)}", hint=hint)
    return DataError(path, expected="full rows", found=f"an incomplete row in the loop of line {loop_line}")
