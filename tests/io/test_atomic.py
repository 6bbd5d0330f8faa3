from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hoarfrost.errors import UsageError
from hoarfrost.io.atomic import atomic_output, check_names, is_of_job, write_text_atomically


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_replaces_the_previous_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text_atomically(target, "first")
    write_text_atomically(target, "second\n")
    assert target.read_bytes() == b"second\n"
    assert files_in(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_keeps_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    target = tmp_path / "a.txt"
    write_text_atomically(target, "good")

    def disk_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, disk_full)
    with pytest.raises(UsageError, match=r"cannot write .*a\.txt: No space left on device$"):
        write_text_atomically(target, "new")
    assert target.read_text() == "good"
    assert files_in(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_keeps_the_previous_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    write_text_atomically(target, "good")

    def write_and_fail() -> None:
        with atomic_output(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert target.read_text() == "good"
    assert files_in(tmp_path) == ["a.txt"]


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hoarfrost.io import atomic

    real = atomic._fsync

    def refuse_folders(path: Path) -> None:
        if path.is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        real(path)

    monkeypatch.setattr(atomic, "_fsync", refuse_folders)
    write_text_atomically(tmp_path / "a.txt", "good")
    assert files_in(tmp_path) == ["a.txt"]


def test_a_folder_in_place_of_the_file_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*taken: Is a directory"):
        write_text_atomically(tmp_path / "taken", "text")
    with pytest.raises(UsageError, match=r"cannot write .*a\.txt: No such file or directory"):
        write_text_atomically(tmp_path / "missing" / "a.txt", "text")
    assert files_in(tmp_path) == ["taken"]


def test_what_a_scheduler_or_relion_puts_into_a_folder_beforehand() -> None:
    of_jobs = (
        "job.star run.out run.err note.txt job_pipeline.star RELION_JOB_EXIT_SUCCESS slurm-123.out a.o12 a.e1-3 .x"
    )
    assert all(is_of_job(name) for name in of_jobs.split())
    others = "notes.txt map.mrc particles.star run.star my.tiff events.jsonl checkpoints"
    assert not any(is_of_job(name) for name in others.split())


def test_a_name_that_is_no_utf8_is_found_beforehand(tmp_path: Path) -> None:
    check_names("a.star", tmp_path / "données «x» 粒子.star", None)
    with pytest.raises(UsageError, match=r"a\\udcff\.star is not in UTF-8, .*; rename it"):
        check_names("a\udcff.star")
    with pytest.raises(UsageError, match="is not in UTF-8, at"):
        write_text_atomically(tmp_path / "a.txt", "particles = a\udcff.star")
    assert files_in(tmp_path) == []
