from __future__ import annotations

import gzip
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hoarfrost.errors import DataError
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.star import StarTable, read_star, write_star

TEXT = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
           1   300.000000

# version 30001

data_particles

loop_
_rlnDefocusU #1
_rlnMicrographName #2
12676.516000 mic.mrc
12676.500 'my micrograph.mrc'  # a comment
-0.10e4 ""
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_text_of_every_value_is_kept(tmp_path: Path) -> None:
    star = read_star(written(tmp_path / "a.star", TEXT))
    assert list(star.tables) == ["optics", "particles"]
    assert star.tables["particles"].n_rows == 3
    assert star.tables["particles"].columns == {
        "rlnDefocusU": ["12676.516000", "12676.500", "-0.10e4"],
        "rlnMicrographName": ["mic.mrc", "my micrograph.mrc", ""],
    }


def test_layout_of_a_written_file(tmp_path: Path) -> None:
    tables = [
        StarTable("optics", {"rlnOpticsGroup": ["1"], "rlnVoltage": ["300.0"]}),
        StarTable("general", {"rlnName": ["x y"]}, is_loop=False),
        StarTable("particles", {"rlnA": ["1", "-10"], "rlnB": ["a b", "c"]}),
    ]
    write_star(tmp_path / "a.star", tables)
    assert (tmp_path / "a.star").read_text() == (
        "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n1 300.0\n\n"
        '\n# version 30001\n\ndata_general\n\n_rlnName "x y"\n\n'
        '\n# version 30001\n\ndata_particles\n\nloop_\n_rlnA #1\n_rlnB #2\n  1 "a b"\n-10     c\n\n'
    )
    assert list(read_star(tmp_path / "a.star").tables.values()) == tables


def test_a_file_without_optics_says_no_version(tmp_path: Path) -> None:
    write_star(tmp_path / "a.star", [StarTable("", {"rlnA": ["1"]})])
    assert (tmp_path / "a.star").read_text() == "\ndata_\n\nloop_\n_rlnA #1\n1\n\n"
    assert list(read_star(tmp_path / "a.star").tables) == [""]


# Everything printable, with spaces and tabs; a value cannot hold both kinds of quotes.
values = st.text(string.digits + string.ascii_letters + string.punctuation + " \t", max_size=8).filter(
    lambda value: not ('"' in value and "'" in value)
)
words = st.sampled_from(["data_x", "loop_", "_rlnA", "#1", "?", ".", ";", "1e-3", "000001@a b/c.mrcs", "[0,0]", "$x"])


@st.composite
def star_tables(draw: st.DrawFn) -> StarTable:
    n_rows = draw(st.integers(1, 4))
    column = st.lists(values | words, min_size=n_rows, max_size=n_rows)
    columns = [draw(column) for _ in range(draw(st.integers(1, 4)))]
    return StarTable("particles", {f"rlnC{number}": column for number, column in enumerate(columns)})


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(star_tables())
def test_every_text_survives_the_round_trip(tmp_path: Path, table: StarTable) -> None:
    write_star(tmp_path / "a.star", [table])
    assert read_star(tmp_path / "a.star").tables == {"particles": table}


@pytest.mark.parametrize("value", ["two\nlines", "a b'\"", "bell\a", "a\rb", "\udc80"])
def test_values_that_star_cannot_hold_are_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        write_star(tmp_path / "a.star", [StarTable("x", {"rlnA": [value]})])
    assert list(tmp_path.iterdir()) == []


NAMES = [
    "µ.mrc",
    "données/a.mrc",
    "data_1.mrc",
    "_7.mrc",
    "#7.mrc",
    "$7.mrc",
    "loop_a",
    "save_x",
    "[1].mrc",
    ";x",
    "it's",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("last", [True, False])
def test_names_are_read_by_line_and_blank_whatever_they_begin_with(tmp_path: Path, name: str, last: bool) -> None:
    """As RELION writes them: without quotes, first or last in their row."""
    columns = ["_rlnDefocusU #1", "_rlnMicrographName #2"]
    rows = [["1.0", name], ["2.0", "b.mrc"], ["3.0", name]]
    if not last:
        columns, rows = columns[::-1], [row[::-1] for row in rows]
    text = (
        "data_particles\n\nloop_\n" + "\n".join([*columns, *(" ".join(row) for row in rows)]) + "\n\n# version 30001\n"
    )
    star = read_star(written(tmp_path / "a.star", text + "\ndata_other\n\nloop_\n_rlnA\n1\n"))
    assert list(star.tables) == ["particles", "other"]
    assert star.tables["particles"].columns["rlnMicrographName"] == [name, "b.mrc", name]
    write_star(tmp_path / "b.star", star.tables.values())
    assert read_star(tmp_path / "b.star").tables == star.tables


def test_a_byte_order_mark_and_other_line_ends_are_read(tmp_path: Path) -> None:
    text = TEXT.encode().replace(b"\n", b"\r\n")
    (tmp_path / "a.star").write_bytes(b"\xef\xbb\xbf" + text)
    assert read_star(tmp_path / "a.star").tables == read_star(written(tmp_path / "b.star", TEXT)).tables


def test_only_a_file_that_ends_in_a_row_is_said_to_be_cut_short(tmp_path: Path) -> None:
    lines = TEXT.strip().splitlines()
    for rows, cut in ((["1.0", "2.0 b"], False), (["1.0 a", "2.0"], True), (["1.0 a b c", "2.0 b"], False)):
        path = written(tmp_path / "a.star", "\n".join([*lines[:-3], *rows]) + "\n")
        with pytest.raises(DataError, match="2 values on line") as caught:
            read_star(path)
        assert ("cut short" in str(caught.value)) == cut


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.star", 2, (8, 8), 1.0, [np.ones((2, 8, 8))])
    with pytest.raises(DataError, match=r"found images or a map \(MRC\); give the STAR or .cs file"):
        read_star(tmp_path / "a.star")
    (tmp_path / "b.star").write_bytes(gzip.compress(TEXT.encode()))
    with pytest.raises(DataError, match="compressed by gzip; gunzip it first"):
        read_star(tmp_path / "b.star")
    (tmp_path / "c.star").write_bytes(TEXT.replace("mic", "mïc").encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8 on line 18"):
        read_star(tmp_path / "c.star")


def test_columns_of_different_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lengths"):
        write_star(tmp_path / "a.star", [StarTable("x", {"rlnA": ["1"], "rlnB": []})])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.removesuffix('""\n'), "2 values on line 20, found 1"),
        (TEXT.replace("12676.500", "12676.500 extra"), "2 values on line 19, found 3"),
        (TEXT.replace('""', '"cut'), "line 20"),
        (TEXT.replace("_rlnMicrographName", "_rlnDefocusU"), "duplicate"),
        (TEXT.replace("data_particles", "data_optics"), "duplicate block name"),
        (TEXT.replace("data_particles\n", ""), "one table in block data_optics"),
        (TEXT.replace('""', "\n;two\nlines\n;"), "one line"),
        (TEXT[:180], "line"),
        ("", "empty file"),
        ("# only a comment\n", "empty file"),
        ("nothing of the kind", "line 1"),
        ("\x00\x01\x02", "line 1"),
        ("data_a\n\nloop_\n", "line 3|line 4"),
    ],
)
def test_broken_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path / "a.star", text)
    with pytest.raises(DataError, match=message) as caught:
        read_star(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_star(tmp_path / "a.star")
    with pytest.raises(DataError, match="a folder"):
        read_star(tmp_path)


def test_rewriting_a_relion_file_changes_no_value(tmp_path: Path, shared_data: Path) -> None:
    star = read_star(shared_data / "relion-70s" / "true_poses.star")
    write_star(tmp_path / "a.star", star.tables.values())
    assert read_star(tmp_path / "a.star").tables == star.tables
