from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hoarfrost.errors import DataError
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.posed_star import write_posed_particles
from hoarfrost.io.star import read_star
from hoarfrost.io.star_optics import read_optics

NEW = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnImagePixelSize #5
_rlnImageSize #6
7 300.0 2.7 0.10 2.5 4
3 200.0 2.0 0.07 2.5 4

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
_rlnPhaseShift #6
000002@a.mrcs 3 10000.0 9000.00 30.0 90
000001@sub/b.mrcs 7 11000.0 9500.00 -30.0 0
000003@a.mrcs 3 12000.0 9800.00 0.0 45
"""

OLD = """
data_images

loop_
_rlnImageName #1
_rlnDefocusU #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnMagnification #6
_rlnDetectorPixelSize #7
_rlnAngleRot #8
_rlnAngleTilt #9
_rlnAnglePsi #10
_rlnOriginX #11
_rlnOriginY #12
1@a.mrcs 10000 300 2.7 0.1 20000 5.0 10 20 30 1.5 -2
2@a.mrcs 10500 300 2.7 0.1 20000 5.0 -50 170 80 0 0
"""


@pytest.fixture
def star_path(tmp_path: Path) -> Callable[[str], Path]:
    """Write a STAR file beside its two stacks."""
    (tmp_path / "sub").mkdir()
    images = np.random.default_rng(0).normal(size=(3, 4, 4))
    write_stack(tmp_path / "a.mrcs", 3, (4, 4), 2.5, [images])
    write_stack(tmp_path / "sub" / "b.mrcs", 1, (4, 4), 2.5, [images[:1]])

    def write(text: str) -> Path:
        path = tmp_path / "particles.star"
        path.write_text(text)
        return path

    return write


StarPath = Callable[[str], Path]


def test_relion_31(star_path: StarPath) -> None:
    table = read_particles(star_path(NEW))
    assert table.n == 3
    assert [path.name for path in table.stack_paths] == ["a.mrcs", "b.mrcs"]
    assert table.stack_number.tolist() == [0, 1, 0]
    assert table.image_index.tolist() == [1, 0, 2]
    optics = table.optics
    assert optics.optics_group.tolist() == [3, 7, 3]
    assert optics.voltage_kV.tolist() == [200, 300, 200]
    assert optics.cs_mm.tolist() == [2.0, 2.7, 2.0]
    assert optics.amplitude_contrast.tolist() == [0.07, 0.1, 0.07]
    assert optics.defocus_u_A.tolist() == [10000, 11000, 12000]
    assert optics.defocus_v_A.tolist() == [9000, 9500, 9800]
    assert optics.defocus_angle_deg.tolist() == [30, -30, 0]
    assert optics.phase_shift_deg.tolist() == [90, 0, 45]
    assert all(column.dtype == np.float64 for column in (optics.voltage_kV, optics.phase_shift_deg))
    assert (table.pixel_size_A, table.box, optics.box) == (2.5, 4, 4)
    assert table.rotations is None
    assert table.shifts_A is None
    assert table.warnings == ()


def test_relion_30(star_path: StarPath) -> None:
    table = read_particles(star_path(OLD))
    assert table.pixel_size_A == pytest.approx(2.5)
    assert table.optics.optics_group.tolist() == [1, 1]
    assert table.optics.box is None
    # No rlnDefocusV, angle or phase shift: round, no phase plate.
    assert table.optics.defocus_v_A.tolist() == table.optics.defocus_u_A.tolist()
    assert table.optics.defocus_angle_deg.tolist() == [0, 0]
    assert table.optics.phase_shift_deg.tolist() == [0, 0]
    assert table.rotations is not None
    assert table.shifts_A is not None
    expected = Rotation.from_euler("ZYZ", [[10, 20, 30], [-50, 170, 80]], degrees=True).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(table.rotations, expected, atol=1e-12)
    np.testing.assert_allclose(table.shifts_A, [[-3.75, 5.0], [0, 0]])


@pytest.mark.parametrize("name", ["rlnPixelSize", "rlnImagePixelSize"])
def test_relion_30_with_a_pixel_size_of_its_own(star_path: StarPath, name: str) -> None:
    text = OLD.replace("rlnMagnification", "rlnUnused").replace("rlnDetectorPixelSize", name)
    assert read_particles(star_path(text)).pixel_size_A == 5.0


def test_ctf_of_a_file_without_images(star_path: StarPath) -> None:
    optics = read_optics(read_star(star_path(NEW.replace("rlnImageName", "rlnMicrographName"))))
    assert optics.voltage_kV.tolist() == [200, 300, 200]


FAULTS = [
    (NEW, "data_particles", "data_other", "a block data_particles, found data_optics, data_other"),
    (NEW, "_rlnImageName", "_rlnOther", "a column rlnImageName"),
    (NEW, "_rlnOpticsGroup #2", "_rlnOther", "a column rlnOpticsGroup"),
    (NEW, "_rlnDefocusU", "_rlnOther", "a column rlnDefocusU .*estimate the CTF"),
    (NEW, "_rlnVoltage", "_rlnOther", "a column rlnVoltage in data_optics"),
    (NEW, "_rlnSphericalAberration", "_rlnOther", "a column rlnSphericalAberration"),
    (NEW, "_rlnAmplitudeContrast", "_rlnOther", "a column rlnAmplitudeContrast"),
    (NEW, "_rlnImagePixelSize", "_rlnOther", "the pixel size"),
    (NEW, "sub/b.mrcs", "lost.mrcs", "row 2: expected the image file lost.mrcs, found none in"),
    (NEW, "000003@a", "000000@a", "row 3: expected rlnImageName like"),
    (NEW, "000003@a.mrcs", "a.mrcs", "row 3: expected rlnImageName like"),
    (NEW, "000003@a.mrcs", "000003@", "row 3: expected rlnImageName like"),
    (NEW, "000003@a", "x@a", "row 3: expected rlnImageName like"),
    (NEW, "000003@a", "-1@a", "row 3: expected rlnImageName like"),
    (NEW, "000003@a", "000004@a", "row 3: expected an image of 1 to 3 in a.mrcs, found image 4"),
    (NEW, "000003@a", "9" * 5000 + "@a", "row 3: expected rlnImageName like"),
    (NEW, "000003@a.mrcs 3", "000003@a.mrcs 5", r"row 3: expected an optics group of data_optics \(7, 3\), found 5"),
    (NEW, "000003@a.mrcs 3", "000003@a.mrcs 3.5", "row 3: expected a whole number in rlnOpticsGroup"),
    (NEW, "\n7 300", "\n3 300", "one twice"),
    (NEW, "12000.0", "nan", "row 3: expected a number in rlnDefocusU of data_particles, found 'nan'"),
    (NEW, "12000.0", "inf", "row 3: expected a number"),
    (NEW, "12000.0", "12,000.0", "row 3: expected a number"),
    (NEW, "9800.00", "?", "row 3: expected a number in rlnDefocusV"),
    (NEW, "200.0", "200000.0", "row 2: expected a number from 1 to 5000 in rlnVoltage of data_optics.*kV"),
    (NEW, "0.07", "7", "row 2: expected a number from 0 to 1 in rlnAmplitudeContrast"),
    (NEW, "2.0 0.07", "-2.0 0.07", "row 2: expected a number of at least 0 in rlnSphericalAberration"),
    (NEW, "0.07 2.5", "0.07 0", "row 2: expected a pixel size above 0 Å"),
    (NEW, "0.07 2.5", "0.07 -2.5", "row 2: expected a pixel size above 0 Å"),
    (NEW, "0.07 2.5", "0.07 2.6", "one pixel size for all particles, found 2.5000 to 2.6000 Å"),
    (NEW, "0.07 2.5 4", "0.07 2.5 8", "one image size"),
    (NEW, " 2.5 4\n", " 2.5 8\n", "images of rlnImageSize 8 pixels, found 4 pixels"),
    (NEW, NEW[NEW.index("000002@") :], "", "at least one particle"),
    (NEW, NEW[NEW.index("7 300") : NEW.index("data_particles")], "\n", "at least one optics group"),
    (NEW, "_rlnImageSize", "_rlnCtfDataAreCtfPremultiplied", "not multiplied by their CTF"),
    (NEW, "_rlnImageSize", "_rlnImageDimensionality", "2D images"),
    (OLD, "_rlnMagnification", "_rlnOther", "the pixel size"),
    (OLD, "20000 5.0 10", "0 5.0 10", "row 1: expected a number of at least 1 in rlnMagnification"),
    (OLD, "20000 5.0 10", "25000 5.0 10", "one pixel size"),
    (NEW, "10000.0", "?", "row 1: expected a number in rlnDefocusU of data_particles, found '\\?'$"),
    (NEW, "200.0", "kV", "row 2: expected a number from 1 to 5000 in rlnVoltage of data_optics, found 'kV'$"),
    (NEW, "_rlnDefocusU", "_rlnCtfImage", r"2D images of single particles, found subtomograms \(rlnCtfImage\)$"),
    (NEW, "_rlnPhaseShift", "_rlnCtfDataArePhaseFlipped", "whose phases are not flipped"),
    (NEW, "_rlnPhaseShift", "_rlnImageDimensionality", "2D images"),
    (NEW, "_rlnPhaseShift", "_hoarfrostSign", "row 1: expected 1 or -1 in hoarfrostSign, found 90"),
]


def test_positions_of_particles_are_told_from_particles(star_path: StarPath) -> None:
    path = star_path("data_\n\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\na.mrc 1 2\n")
    with pytest.raises(DataError, match=r"a column rlnImageName in data_, found none; .*extract the particles first$"):
        read_particles(path)


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("170", "tilted", "row 2: expected a number in rlnAngleTilt"),
        ("-2\n", "NaN\n", "row 1: expected a number in rlnOriginY"),
    ],
)
def test_poses_that_are_none_are_told_to_those_who_use_them(
    star_path: StarPath, good: str, bad: str, message: str
) -> None:
    assert good in OLD
    table = read_particles(star_path(OLD.replace(good, bad)))
    assert table.has_poses
    with pytest.raises(DataError, match=message):
        _ = table.poses


def test_a_column_is_looked_for_in_both_blocks_and_contradictions_are_told(star_path: StarPath) -> None:
    own = NEW.replace("_rlnVoltage", "_rlnUnused").replace("_rlnPhaseShift", "_rlnVoltage")
    table = read_particles(star_path(own.replace("30.0 90", "30.0 120").replace("-30.0 0", "-30.0 300")))
    assert table.optics.voltage_kV.tolist() == [120, 300, 45]
    both = NEW.replace("_rlnPhaseShift", "_rlnVoltage").replace(" 90\n", " 200.001\n").replace("30.0 0\n", "30.0 300\n")
    both = both.replace(" 45\n", " 201\n")
    table = read_particles(star_path(both))
    told = [warning for warning in table.warnings if "rlnVoltage" in warning]
    assert len(told) == 1
    assert "that of data_optics is used" in told[0]
    assert table.optics.voltage_kV.tolist() == [200, 300, 200]


@pytest.mark.parametrize(("text", "good", "bad", "message"), FAULTS)
def test_faults_are_told_in_one_line(star_path: StarPath, text: str, good: str, bad: str, message: str) -> None:
    assert good in text
    path = star_path(text.replace(good, bad))
    with pytest.raises(DataError, match=message) as caught:
        read_particles(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_stacks_of_different_box_sizes_and_oblong_images_are_refused(tmp_path: Path, star_path: StarPath) -> None:
    path = star_path(NEW)
    write_stack(tmp_path / "sub" / "b.mrcs", 1, (6, 6), 2.5, [np.ones((1, 6, 6))])
    with pytest.raises(DataError, match=r"b\.mrcs: expected images of 4 pixels as in a\.mrcs, found 6 pixels"):
        read_particles(path)
    write_stack(tmp_path / "sub" / "b.mrcs", 1, (4, 6), 2.5, [np.ones((1, 4, 6))])
    with pytest.raises(DataError, match=r"b\.mrcs: expected square images, found 6 × 4 pixels"):
        read_particles(path)


def test_a_truncated_stack_is_named(tmp_path: Path, star_path: StarPath) -> None:
    stack = tmp_path / "a.mrcs"
    stack.write_bytes(stack.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"a\.mrcs: expected .* truncated"):
        read_particles(star_path(NEW))


def test_images_are_found_from_the_project_folder(
    tmp_path: Path, star_path: StarPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    star_path(NEW)
    job = tmp_path / "Select" / "job001"
    job.mkdir(parents=True)
    (job / "particles.star").write_text(NEW)
    assert read_particles(job / "particles.star").stack_paths[0].samefile(tmp_path / "a.mrcs")
    # The STAR file's own folder goes first.
    write_stack(job / "a.mrcs", 3, (4, 4), 2.5, [np.ones((3, 4, 4))])
    assert read_particles(job / "particles.star").stack_paths[0].samefile(job / "a.mrcs")
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "particles.star").write_text(NEW)
    with pytest.raises(DataError, match=r"row 1: expected the image file a\.mrcs"):
        read_particles(elsewhere / "particles.star")
    assert read_particles(elsewhere / "particles.star", datadir=tmp_path).n == 3
    monkeypatch.chdir(tmp_path)
    assert read_particles(elsewhere / "particles.star").n == 3
    with pytest.raises(DataError, match=f"none in {elsewhere}"):
        read_particles(elsewhere / "particles.star", datadir=elsewhere)


def test_what_a_file_tells_of_its_optics_is_read(tmp_path: Path, star_path: StarPath) -> None:
    text = NEW.replace(
        "_rlnImageSize #6\n",
        "_rlnImageSize #6\n_rlnBeamTiltX #7\n_rlnOddZernike #8\n_rlnEvenZernike #9\n_rlnMagMat00 #10\n",
    )
    quiet = text.replace(" 2.5 4\n", " 2.5 4 0.0 [0,0,0.0] [0,0] 1.0\n")
    assert read_particles(star_path(quiet)).warnings == ()
    loud = text.replace(" 2.5 4\n", " 2.5 4 0.1 [0,0.2,0] [0,1] 1.01\n")
    loud = loud.replace("_rlnPhaseShift", "_rlnCtfBfactor")
    patch = (tmp_path / "a.mrcs").open("r+b")
    with patch:
        patch.seek(40)
        patch.write(struct.pack("<3f", 16.0, 16.0, 4.0))
    found = read_particles(star_path(loud))
    assert len(found.warnings) == 1
    assert "4 Å in its header" in found.warnings[0]
    assert found.optics.magnification[0].tolist() == [[1.01, 0.0], [0.0, 1.0]]
    assert [*found.optics.aberrations.told()] == ["beam tilt", "odd aberrations", "even aberrations"]
    assert found.optics.ctf_b_factor_A2.tolist() == [90.0, 0.0, 45.0]


def random_poses(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return Rotation.random(n, rng=rng).as_matrix(), rng.normal(size=(n, 2)) * 5


@pytest.mark.parametrize("text", [NEW, OLD])
def test_poses_come_back_and_other_columns_keep_their_text(tmp_path: Path, star_path: StarPath, text: str) -> None:
    table = read_particles(star_path(text))
    rotations, shifts_A = random_poses(table.n)
    extra = {
        "rlnMaxValueProbDistribution": np.linspace(1e-5, 1, table.n),
        "rlnLogLikeliContribution": np.full(table.n, -1.5e8),
        "rlnNrOfSignificantSamples": np.arange(table.n),
    }
    out = tmp_path / "posed.star"
    write_posed_particles(out, table, rotations, shifts_A, extra)
    again = read_particles(out)
    assert again.rotations is not None
    assert again.shifts_A is not None
    np.testing.assert_allclose(again.rotations, rotations, atol=1e-7)
    np.testing.assert_allclose(again.shifts_A, shifts_A, atol=1e-5)
    before, after = (next(reversed(t.star.tables.values())).columns for t in (table, again))
    replaced = {"rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginX", "rlnOriginY"}
    assert {k: v for k, v in before.items() if k not in replaced} == {
        k: v for k, v in after.items() if k in before and k not in replaced
    }
    assert ("rlnOriginXAngst" in after) == (text is NEW)
    assert ("rlnOriginX" in after) == (text is OLD)
    assert after["rlnNrOfSignificantSamples"] == [str(i) for i in range(table.n)]
    assert float(after["rlnLogLikeliContribution"][0]) == -1.5e8
    assert ("# version 30001" in out.read_text()) == (text is NEW)


def test_only_the_rows_asked_for_are_written(tmp_path: Path, star_path: StarPath) -> None:
    table = read_particles(star_path(NEW))
    rotations, shifts_A = random_poses(table.n)
    rows = np.array([2, 0])
    number = {"rlnClassNumber": np.arange(table.n) + 1}
    write_posed_particles(tmp_path / "o.star", table, rotations, shifts_A, number, rows)
    again = read_particles(tmp_path / "o.star")
    assert again.n == 2
    assert again.rotations is not None
    np.testing.assert_allclose(again.rotations, rotations[rows], atol=1e-7)
    np.testing.assert_array_equal(again.image_index, table.image_index[rows])
    assert read_star(tmp_path / "o.star").tables["particles"].columns["rlnClassNumber"] == ["3", "1"]


def test_identity_poses_are_written_without_a_warning_or_a_minus_zero(tmp_path: Path, star_path: StarPath) -> None:
    table = read_particles(star_path(NEW))
    write_posed_particles(tmp_path / "o.star", table, np.tile(np.eye(3), (3, 1, 1)), np.zeros((3, 2)))
    columns = read_star(tmp_path / "o.star").tables["particles"].columns
    assert columns["rlnOriginXAngst"] == ["0.000000"] * 3
    assert "rlnOriginX" not in columns


def test_origins_in_the_other_unit_do_not_stay_behind(tmp_path: Path, star_path: StarPath) -> None:
    text = NEW.replace("_rlnPhaseShift", "_rlnOriginX")
    write_posed_particles(tmp_path / "o.star", read_particles(star_path(text)), *random_poses(3))
    assert "rlnOriginX" not in read_star(tmp_path / "o.star").tables["particles"].columns


def test_names_of_images_are_changed_only_where_they_would_not_resolve(tmp_path: Path, star_path: StarPath) -> None:
    table = read_particles(star_path(NEW))

    def names_written_to(folder: Path) -> list[str]:
        folder.mkdir(exist_ok=True)
        write_posed_particles(folder / "out.star", table, *random_poses(3))
        again = read_particles(folder / "out.star")
        assert all(a.samefile(b) for a, b in zip(again.stack_paths, table.stack_paths, strict=True))
        return again.star.tables["particles"].columns["rlnImageName"]

    original = ["000002@a.mrcs", "000001@sub/b.mrcs", "000003@a.mrcs"]
    assert names_written_to(tmp_path) == original
    assert names_written_to(tmp_path / "job") == original  # found in the folder above
    other = tmp_path.parent / f"{tmp_path.name} with a space"
    moved = [name.replace("@", f"@../{tmp_path.name}/") for name in original]
    assert names_written_to(other) == moved
    # Another file of the same name would be taken for ours.
    (tmp_path / "sub2").mkdir()
    write_stack(tmp_path / "sub2" / "a.mrcs", 3, (4, 4), 2.5, [np.ones((3, 4, 4))])
    assert names_written_to(tmp_path / "sub2") == ["000002@../a.mrcs", "000001@sub/b.mrcs", "000003@../a.mrcs"]


def test_poses_of_the_wrong_shape_or_not_finite_are_refused(tmp_path: Path, star_path: StarPath) -> None:
    table = read_particles(star_path(NEW))
    rotations, shifts_A = random_poses(3)
    with pytest.raises(ValueError, match="shapes"):
        write_posed_particles(tmp_path / "o.star", table, rotations[:2], shifts_A)
    with pytest.raises(ValueError, match="rlnX needs 3 finite"):
        write_posed_particles(tmp_path / "o.star", table, rotations, shifts_A, {"rlnX": np.array([1, 2, np.nan])})
    assert not (tmp_path / "o.star").exists()


def test_ctf_of_the_shared_fits(shared_data: Path) -> None:
    optics = read_optics(read_star(shared_data / "ctf" / "dna-tetrahedron-200kV.star"))
    assert len(optics.defocus_u_A) == 2019
    assert set(optics.voltage_kV) == {200.0}
    assert optics.pixel_size_A == 2.95
