"""Folders for results: nothing of a user's own is replaced, and nothing old passes for new."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoarfrost.errors import UsageError
from hoarfrost.io.folders import check_file, check_files, check_output, folder_in_place, make_folder


def others(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != "ours"]


def test_a_folder_is_replaced_only_where_all_of_it_is_ours(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    check_output(folder, False, others, command="work")
    folder.mkdir()
    check_output(folder, False, others, command="work")
    (folder / "ours").touch()
    with pytest.raises(UsageError, match="exists; choose another folder or give --overwrite, or wait"):
        check_output(folder, False, others, command="work", hint=", or wait")
    check_output(folder, True, others, command="work")
    (folder / "theirs").touch()
    with pytest.raises(UsageError, match="holds theirs, which work did not write"):
        check_output(folder, True, others, command="work")
    with pytest.raises(UsageError, match="is a file"):
        check_output(folder / "ours", True, others, command="work")


def test_pictures_may_lie_beside_what_is_theirs(tmp_path: Path) -> None:
    (tmp_path / "theirs").touch()
    check_files(tmp_path, ["ours"], overwrite=False)
    (tmp_path / "ours").touch()
    with pytest.raises(UsageError, match="ours exists"):
        check_files(tmp_path, ["ours"], overwrite=False)
    check_files(tmp_path, ["ours"], overwrite=True)
    assert make_folder(tmp_path, ["ours", "missing"]) == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    with pytest.raises(UsageError, match="cannot write"):
        make_folder(tmp_path / "theirs" / "out", [])


def test_an_input_is_never_the_output(tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "output"
    source.touch()
    check_file(output, [source], overwrite=False)
    output.touch()
    check_file(output, [source, tmp_path / "missing"], overwrite=True)
    with pytest.raises(UsageError, match="output exists"):
        check_file(output, [source], overwrite=False)
    with pytest.raises(UsageError, match="is an input"):
        check_file(source, [source], overwrite=True)


def test_a_folder_takes_its_place_whole_or_not_at_all(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "old").touch()

    def fail_midway() -> None:
        with folder_in_place(output) as folder:
            (folder / "new").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail_midway()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/old"]
    with folder_in_place(output) as folder:
        (folder / "new").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/new"]
