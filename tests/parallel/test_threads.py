"""How many threads work is split among, and when torch's own take part."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from hoarfrost.parallel import available
from hoarfrost.parallel.available import available_cores
from hoarfrost.parallel.join import joined
from hoarfrost.parallel.threads import LEAST_WIDE, cores, each, on_cores, wide

CPU = torch.device("cpu")


def test_in_a_run_torch_keeps_to_one_core_but_for_large_operations() -> None:
    before = torch.get_num_threads()
    with on_cores(3):
        assert (cores(), torch.get_num_threads()) == (3, 1)
        with wide(LEAST_WIDE):
            assert torch.get_num_threads() == 3
        with wide(LEAST_WIDE - 1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert (cores(), torch.get_num_threads()) == (before, before)


def test_outside_a_run_torch_has_the_threads_that_it_had() -> None:
    before = torch.get_num_threads()
    with wide(LEAST_WIDE):
        assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="no reason"), on_cores(7):
        raise ValueError("no reason")
    assert torch.get_num_threads() == before


def test_workers_keep_to_one_core_whatever_they_work_on() -> None:
    def work(piece: int) -> tuple[str, int]:
        with wide(LEAST_WIDE):
            return threading.current_thread().name, torch.get_num_threads()

    with on_cores(2):
        found = each(work, range(20), CPU)
        assert torch.get_num_threads() == 1
    assert {threads for _, threads in found} == {1}
    assert {name for name, _ in found} <= {"hoarfrost_0", "hoarfrost_1"}


def test_a_run_has_the_threads_that_are_asked_for() -> None:
    with joined("cpu", 5):
        assert cores() == 5
    with joined("cpu"):
        assert 1 <= cores() <= available_cores()


def no_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    for name in ("CPU_MAX", "QUOTA", "PERIOD"):
        monkeypatch.setattr(available, name, tmp_path / name)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"CPU_MAX": "150000 100000\n"}, 2),
        ({"CPU_MAX": "max 100000\n"}, 8),
        ({"QUOTA": "300000\n", "PERIOD": "100000\n"}, 3),
        ({"QUOTA": "-1\n", "PERIOD": "100000\n"}, 8),
        ({"CPU_MAX": "20000 100000\n"}, 1),
        ({"CPU_MAX": "1600000 100000\n"}, 8),
        ({"CPU_MAX": "\n"}, 8),
    ],
)
def test_a_quota_of_the_control_group_counts(
    files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_limits(monkeypatch, tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="ascii")
    assert available_cores() == expected


@pytest.mark.parametrize(("asked", "expected"), [("3", 3), ("20", 8), ("many", 8), ("0", 1)])
def test_a_batch_job_has_the_cores_that_it_asked_for(
    asked: str, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_limits(monkeypatch, tmp_path)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", asked)
    assert available_cores() == expected
