"""The cache of compiled code: whatever happens to it, functions give their results."""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest

from hoarfrost.maths import compile_cache

KERNEL = """
from hoarfrost.maths.compiled import compiled

@compiled()
def add(a, b):
    return a + b
"""
MAIN = "import numpy as np, kernel\nprint(kernel.add(np.float32(1), np.float32(2)), len(kernel.add.stats.cache_hits))\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    compile_cache._tell_once.cache_clear()
    (tmp_path / "kernel.py").write_text(KERNEL)
    return tmp_path / "cache" / "hoarfrost"


def run(folder: Path) -> tuple[float, int]:
    """What the kernel gives in a process to come, and how many functions it has found in the cache."""
    spec = importlib.util.spec_from_file_location("kernel", folder / "kernel.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules["kernel"] = module
    compile_cache._source_digest.cache_clear()
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["kernel"]
    result = float(module.add(np.float32(1), np.float32(2)))
    return result, sum(module.add.stats.cache_hits.values())


def test_code_is_found_again_in_the_users_cache_and_nowhere_else(tmp_path: Path, cache: Path) -> None:
    assert run(tmp_path) == (3, 0)
    assert run(tmp_path) == (3, 1)
    assert len([*cache.iterdir()]) == 1
    package = Path(compile_cache.__file__).parents[1]
    (tmp_path / "kernel.py").write_text(KERNEL.replace("a + b", "a - b"))
    assert run(tmp_path) == (-1, 0), "of another source"
    assert not [path for path in package.rglob("*.nb?") if path.stat().st_mtime > cache.stat().st_ctime]


def test_a_file_cut_anywhere_is_made_anew(tmp_path: Path, cache: Path) -> None:
    run(tmp_path)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    places = random.Random(0).sample(range(len(whole)), 20)
    for place in (0, *places):
        file.write_bytes(whole[:place])
        assert run(tmp_path) == (3, 0)
        assert run(tmp_path) == (3, 1)


def test_a_file_with_other_bytes_is_made_anew(tmp_path: Path, cache: Path) -> None:
    run(tmp_path)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:4096] + bytes(len(whole) - 4096), whole[:-1] + bytes([whole[-1] ^ 1]), b"\x80\x05N." * 99):
        file.write_bytes(damaged)
        assert run(tmp_path) == (3, 0)
        assert run(tmp_path) == (3, 1)


def test_of_another_version_of_numba_nothing_is_read(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path)
    monkeypatch.setattr(numba, "__version__", "0.1")
    assert run(tmp_path) == (3, 0)
    assert len([*cache.iterdir()]) == 2


def test_a_constant_of_another_module_is_part_of_the_code(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = ModuleType("hoarfrost.constants")
    constants.__file__ = str(tmp_path / "constants.py")
    monkeypatch.setitem(sys.modules, "hoarfrost.constants", constants)
    kernel = KERNEL.replace("a + b", "a + b + OFFSET")
    (tmp_path / "kernel.py").write_text(f"from hoarfrost.constants import OFFSET\n{kernel}")
    for offset in (5, 6):
        (tmp_path / "constants.py").write_text(f"OFFSET = {offset}")
        vars(constants)["OFFSET"] = offset
        assert run(tmp_path) == (3 + offset, 0)
        assert run(tmp_path) == (3 + offset, 1)


@pytest.mark.parametrize("trouble", ["a file in its place", "a folder in place of an entry", "no home"])
def test_without_a_cache_a_line_is_told_once(
    trouble: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if trouble == "a file in its place":
        (tmp_path / "cache").write_text("not a folder")
    elif trouble == "a folder in place of an entry":
        run(tmp_path)
        (file,) = cache.iterdir()
        file.unlink()
        (file / "x").mkdir(parents=True)
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", _no_home)
    with caplog.at_level(logging.WARNING, "hoarfrost"):
        assert run(tmp_path) == (3, 0)
        assert run(tmp_path) == (3, 0)
    assert len(caplog.messages) == 1
    assert "compiled code cannot be kept" in caplog.messages[0]


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    done = _processes(tmp_path, limit + MAIN, 1)[0]
    assert done[0] == "3.0 0\n"
    assert done[1].count("\n") == 1
    assert "File too large" in done[1]
    assert not [*cache.iterdir()]


def test_two_processes_that_start_at_once_share_an_empty_cache(tmp_path: Path, cache: Path) -> None:
    for out, error in _processes(tmp_path, MAIN, 2):
        assert out.startswith("3.0 ")
        assert error == ""
    assert [path.suffix for path in cache.iterdir()] == [compile_cache.SUFFIX]
    assert _processes(tmp_path, MAIN, 1) == [("3.0 1\n", "")]


def _processes(folder: Path, code: str, n: int) -> list[tuple[str, str]]:
    """The output and the errors of so many processes at once."""
    command = [sys.executable, "-c", code]
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    # Coverage would write into the disk that is full.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment["PYTHONPATH"] = path
    started = [
        subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(n)
    ]
    return [process.communicate(timeout=300) for process in started]
