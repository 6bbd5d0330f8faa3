"""Fitted optics in particle files: written where RELION looks for them, and read back as they were."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hoarfrost.io.aberrations_star import AberrationTable
from hoarfrost.io.fitted_star import with_fitted_optics
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.particles_star import ParticleTable, read_particles
from hoarfrost.io.posed_star import write_posed_particles

OPTICS = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnImagePixelSize #5
_rlnImageSize #6
_rlnBeamTiltX #7
_rlnBeamTiltY #8
7 300.0 2.7 0.10 2.5 4 0.1 0.2
3 200.0 2.0 0.07 2.5 4 0.3 0.4
"""
ROWS = """
data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
1@p.mrcs 3 15000.0 14000.0 10.0
2@p.mrcs 7 16000.0 15500.0 20.0
3@p.mrcs 3 17000.0 16500.0 30.0
"""
OLD = """
data_

loop_
_rlnImageName #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnDetectorPixelSize #5
_rlnMagnification #6
_rlnDefocusU #7
_rlnDefocusV #8
_rlnDefocusAngle #9
1@p.mrcs 300.0 2.7 0.1 14.0 56000 15000.0 14000.0 10.0
2@p.mrcs 300.0 2.7 0.1 14.0 56000 16000.0 15500.0 20.0
3@p.mrcs 300.0 2.7 0.1 14.0 56000 17000.0 16500.0 30.0
"""
DEFOCUS = {
    "rlnDefocusU": np.array([15010.5, 16020.25, 17000.0]),
    "rlnDefocusV": np.array([14010.0, 15500.0, 16400.0]),
    "rlnDefocusAngle": np.array([-12.5, 20.0, 31.0]),
}


def table_of(text: str, folder: Path) -> ParticleTable:
    images = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    write_stack(folder / "p.mrcs", 3, (4, 4), 2.5, [images])
    (folder / "in.star").write_text(text, encoding="utf-8")
    return read_particles(folder / "in.star")


EVEN = np.tile(np.eye(2), (3, 1, 1))


def fitted(group: list[int]) -> AberrationTable:
    """Two sets of aberrations, of which particles have those of `group`."""
    return AberrationTable(
        np.array(group),
        np.array([[0.25, -0.5], [1.0, 0.125]]),
        np.array([[0.0, 0.0, -40.5, 0.0, 0.0, 60.25], [0.0] * 6]),
        np.array([[0.5, 0.0, 0.0, 1e-3, 0.0, 0.0, 0.0, 0.0, -900.125], [2.0] * 9]),
    )


@pytest.mark.parametrize("text", [OPTICS + ROWS, OLD], ids=["RELION 3.1", "RELION 3.0"])
@pytest.mark.parametrize("group", [[0, 1, 0], [0, 1, 1]], ids=["of optics groups", "of rows"])
def test_what_is_written_is_read_back(text: str, group: list[int], tmp_path: Path) -> None:
    table, expected = table_of(text, tmp_path), fitted(group)
    write_posed_particles(
        tmp_path / "out.star",
        with_fitted_optics(table, DEFOCUS, expected, EVEN),
        np.tile(np.eye(3), (3, 1, 1)),
        np.zeros((3, 2)),
    )
    found = read_particles(tmp_path / "out.star").optics
    for name, values in zip(("defocus_u_A", "defocus_v_A", "defocus_angle_deg"), DEFOCUS.values(), strict=True):
        np.testing.assert_allclose(getattr(found, name), values)
    for name in ("beam_tilt_mrad", "odd", "even"):
        ours = getattr(found.aberrations, name)[found.aberrations.group]
        np.testing.assert_allclose(ours, getattr(expected, name)[expected.group], rtol=1e-6)
    np.testing.assert_array_equal(found.optics_group, table.optics.optics_group)


def test_aberrations_of_a_whole_group_stand_in_its_row(tmp_path: Path) -> None:
    table = table_of(OPTICS + ROWS, tmp_path)
    star = with_fitted_optics(table, DEFOCUS, fitted([0, 1, 0]), EVEN).star
    assert [*star.tables["optics"].columns["rlnBeamTiltX"]] == ["1.000000", "0.250000"]
    assert star.tables["optics"].columns["rlnOddZernike"][1] == "[0,0,-40.5,0,0,60.25]"
    assert "rlnBeamTiltX" not in star.tables["particles"].columns


def test_aberrations_that_differ_within_a_group_stand_beside_the_particles(tmp_path: Path) -> None:
    table = table_of(OPTICS + ROWS, tmp_path)
    star = with_fitted_optics(table, DEFOCUS, fitted([0, 1, 1]), EVEN).star
    assert [*star.tables["particles"].columns["rlnBeamTiltX"]] == ["0.250000", "1.000000", "1.000000"]
    # That of the group would be read first.
    assert "rlnBeamTiltX" not in star.tables["optics"].columns


def test_nothing_is_added_where_there_are_no_aberrations(tmp_path: Path) -> None:
    table = table_of(OLD, tmp_path)
    none = dataclasses.replace(
        fitted([0, 0, 0]), beam_tilt_mrad=np.zeros((1, 2)), odd=np.zeros((1, 0)), even=np.zeros((1, 0))
    )
    found = with_fitted_optics(table, DEFOCUS, none, EVEN).star.tables[""]
    assert found.columns.keys() == table.star.tables[""].columns.keys()


@pytest.mark.parametrize("text", [OPTICS + ROWS, OLD], ids=["RELION 3.1", "RELION 3.0"])
@pytest.mark.parametrize("differs_in", [0, 1], ids=["of a group", "within a group"])
def test_a_magnification_is_written_with_the_shifts_of_its_images(text: str, differs_in: int, tmp_path: Path) -> None:
    table = table_of(text, tmp_path)
    magnification = EVEN.copy()
    magnification[[differs_in, 2]] = [[1.01, 0.002], [0.003, 0.985]]
    shifts_A = np.array([[3.0, -4.0], [1.0, 2.0], [-5.0, 0.5]])
    after = with_fitted_optics(table, DEFOCUS, fitted([0, 1, 0]), magnification)
    write_posed_particles(tmp_path / "out.star", after, np.tile(np.eye(3), (3, 1, 1)), shifts_A)
    found = read_particles(tmp_path / "out.star")
    np.testing.assert_allclose(found.optics.magnification, magnification, atol=1e-6)
    assert found.shifts_A is not None
    np.testing.assert_allclose(found.shifts_A, shifts_A, atol=1e-4)
