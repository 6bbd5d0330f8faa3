"""Fixtures and settings that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# As the command line does, before torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")

import torch

ROOT = Path(__file__).parents[1]

# Side by side (pytest -n) tests take a core each: on small data that is nearly twice as fast as two threads in turn,
# and two processes of two threads on two cores are ten times slower than either.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: side by side a file stays with one process, and short ones fill up the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def machine_timed_once() -> Iterator[None]:
    """A forecast goes by one measurement, not by what half a second allows: no test asks how long a run takes."""
    from hoarfrost.reconstruction import forecast

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecast, "MOST_REPEATS", 1)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of large test data, which is not part of the repository; tests that need it skip without it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the large test data are not on this machine: no folder shared/data beside the repository")
    return folder


@pytest.fixture(scope="session")
def example_particles() -> Path:
    """The STAR file of the real particles that `make demo` reconstructs."""
    return ROOT / "src" / "hoarfrost" / "examples" / "beta_galactosidase" / "particles.star"
