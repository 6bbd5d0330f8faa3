"""Resolution against the number of particles, and what more of them would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hoarfrost.errors import DataError
from hoarfrost.evaluation.reslog import fit_reslog, read_line
from hoarfrost.io.reslog_star import NAME, read_reslog, write_reslog
from hoarfrost.reporting.encode import save_png
from hoarfrost.reporting.reslog import reslog_figure

NUMBERS = np.array([500.0, 1000.0, 1500.0, 2000.0])


def resolutions_A(b_factor_A2: float, at_first_A: float) -> np.ndarray:
    found: np.ndarray = (at_first_A**-2 + 2 / b_factor_A2 * np.log(NUMBERS / NUMBERS[0])) ** -0.5
    return found


def test_the_line_has_the_b_factor_and_goes_on() -> None:
    line = fit_reslog(NUMBERS, resolutions_A(300.0, 9.0), 3.0)
    assert line is not None
    assert line.b_factor_A2 == pytest.approx(300.0)
    assert line.resolution_A(500) == pytest.approx(9.0)
    assert line.with_twice_A == pytest.approx((9.0**-2 + 2 / 300 * np.log(8)) ** -0.5)


def test_without_three_points_short_of_the_band_limit_nothing_is_said() -> None:
    found_A = resolutions_A(300.0, 9.0)
    assert fit_reslog(NUMBERS, found_A, found_A[1]) is None
    assert fit_reslog(NUMBERS[:2], found_A[:2], 3.0) is None
    # The last point at the limit: nobody knows how far all particles would go.
    assert fit_reslog(NUMBERS, np.maximum(found_A, 1.01 * found_A[-1]), 1.01 * found_A[-1]) is None
    assert fit_reslog(NUMBERS, found_A[::-1].copy(), 3.0) is None


def test_the_file_reads_back_and_is_drawn(tmp_path: Path) -> None:
    found_A = resolutions_A(300.0, 9.0)
    write_reslog(tmp_path / NAME, NUMBERS, found_A, 3.0)
    numbers, read_A, limit_A = read_reslog(tmp_path / NAME)
    assert numbers.tolist() == NUMBERS.tolist()
    assert read_A == pytest.approx(found_A, abs=1e-6)
    assert limit_A == 3.0
    line = read_line(tmp_path)
    assert line is not None
    assert line.b_factor_A2 == pytest.approx(300.0, rel=1e-4)
    save_png(reslog_figure(tmp_path), tmp_path / "reslog.png")
    assert (tmp_path / "reslog.png").stat().st_size > 5000
    write_reslog(tmp_path / NAME, NUMBERS[:1], found_A[:1], 3.0)
    assert read_line(tmp_path) is None
    save_png(reslog_figure(tmp_path), tmp_path / "reslog.png")


def test_a_file_without_its_numbers_is_named(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("data_general\n\n_hoarfrostBandLimit 3.0\n", encoding="utf-8")
    with pytest.raises(DataError, match="reslog"):
        read_reslog(tmp_path / NAME)
    assert read_line(tmp_path / "nothing") is None
