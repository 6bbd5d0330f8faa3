from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hoarfrost.errors import DataError
from hoarfrost.io.fsc_star import FscCurves, read_fsc, write_fsc
from hoarfrost.io.star import read_star

CURVES = FscCurves(
    unmasked=np.array([1.0, 0.9, 0.2, 0.0]),
    masked=np.array([1.0, 0.95, 0.5, 0.0]),
    randomised=np.array([1.0, 0.95, 0.1, 0.0]),
    corrected=np.array([1.0, 0.95, 0.444444, 0.0]),
    length_A=120.0,
    resolution_A=57.5,
    band_limit_A=52.25,
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_fsc(tmp_path / "fsc.star", CURVES)
    found = read_fsc(tmp_path / "fsc.star")
    for name in ("unmasked", "masked", "randomised", "corrected"):
        np.testing.assert_allclose(getattr(found, name), getattr(CURVES, name), atol=1e-6)
    assert (found.length_A, found.resolution_A, found.band_limit_A) == (120.0, 57.5, 52.25)


def test_columns_are_those_of_relions_postprocess_star(tmp_path: Path) -> None:
    write_fsc(tmp_path / "fsc.star", CURVES)
    table = read_star(tmp_path / "fsc.star").tables["fsc"]
    assert list(table.columns["rlnSpectralIndex"]) == ["0", "1", "2", "3"]
    assert [float(v) for v in table.columns["rlnAngstromResolution"]] == [999.0, 120.0, 60.0, 40.0]
    assert float(table.columns["rlnResolution"][2]) == pytest.approx(1 / 60, abs=1e-6)
    assert set(table.columns) == {
        "rlnSpectralIndex",
        "rlnResolution",
        "rlnAngstromResolution",
        "rlnFourierShellCorrelationCorrected",
        "rlnFourierShellCorrelationUnmaskedMaps",
        "rlnFourierShellCorrelationMaskedMaps",
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
    }


@pytest.mark.parametrize("text", ["data_general\n\n_rlnFinalResolution 3\n", "data_fsc\n\n_rlnSpectralIndex 0\n"])
def test_a_file_without_the_curves_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "fsc.star").write_text(text)
    with pytest.raises(DataError, match="data_"):
        read_fsc(tmp_path / "fsc.star")


def test_one_shell_is_no_curve(tmp_path: Path) -> None:
    write_fsc(tmp_path / "fsc.star", CURVES)
    lines = (tmp_path / "fsc.star").read_text().splitlines()
    (tmp_path / "fsc.star").write_text("\n".join(lines[:-4]) + "\n")
    with pytest.raises(DataError, match="two shells or more"):
        read_fsc(tmp_path / "fsc.star")
