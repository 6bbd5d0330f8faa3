from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hoarfrost.errors import DataError
from hoarfrost.io.noise_star import NoiseSpectra, read_noise, write_noise

SPECTRA = NoiseSpectra(
    in_use=np.array([2.0, 1.5, 1.0, 3e-7]),
    of_groups={7: np.array([3.0, 2.5, 2.0, 1.0]), 2: np.array([1.0, 0.5, 0.25, 0.125])},
    length_A=339.49,
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_noise(tmp_path / "noise.star", SPECTRA)
    found = read_noise(tmp_path / "noise.star")
    np.testing.assert_allclose(found.in_use, SPECTRA.in_use, rtol=1e-6)
    assert set(found.of_groups) == {2, 7}
    for number, spectrum in SPECTRA.of_groups.items():
        np.testing.assert_allclose(found.of_groups[number], spectrum, rtol=1e-6)
    assert found.length_A == pytest.approx(339.49, rel=1e-5)


def test_a_missing_block_and_a_negative_variance_are_told(tmp_path: Path) -> None:
    write_noise(tmp_path / "noise.star", SPECTRA)
    text = (tmp_path / "noise.star").read_text()
    (tmp_path / "noise.star").write_text(text.replace("data_noise_optics_groups", "data_other"))
    with pytest.raises(DataError, match="a block data_noise_optics_groups"):
        read_noise(tmp_path / "noise.star")
    (tmp_path / "noise.star").write_text(text.replace("1.500000e+00", "-1.5"))
    with pytest.raises(DataError, match=r"row 2: expected a number of at least 0 in hoarfrostNoiseVariance"):
        read_noise(tmp_path / "noise.star")
