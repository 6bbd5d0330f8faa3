"""From one program's particle file to another's: conventions, names, and what the user is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hoarfrost.cli import main
from hoarfrost.errors import DataError, UsageError
from hoarfrost.io.convert import convert
from hoarfrost.io.cs import read_cs
from hoarfrost.io.frealign import GivenOptics
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.star import read_star
from hoarfrost.model.ctf import CTFParameters
from hoarfrost.simulation.image_formation import ImageFormation
from hoarfrost.simulation.phantom import make_phantom

OPTICS = GivenOptics(2.0, 300.0, 2.7, 0.1)
#       C   PSI   THETA   PHI    SHX    SHY    MAG  FILM    DF1      DF2   ANGAST
ROWS = [
    "  2  30.00  70.00 110.00   4.00  -6.00  50000  7  21000.0  20500.0  15.00",
    "  1 -20.00 100.00  10.00   0.00   1.00  50000  7  22000.0  21500.0 -25.00",
]
TAILS = {
    12: " 50.0",
    13: " 50.0 0.1",
    16: " 100.0 -500 1.2 20.0 0.5",
    17: " 0.5 100.0 -500 1.2 20.0 0.5",
}


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).normal(size=(3, 16, 16))
    (tmp_path / "images").mkdir()
    write_stack(tmp_path / "images" / "a.mrcs", 3, (16, 16), 2.0, [images])
    return tmp_path / "images" / "a.mrcs"


def par(folder: Path, columns: int) -> Path:
    path = folder / f"{columns}.par"
    path.write_text("C a comment\n" + "".join(f"{row}{TAILS[columns]}\n" for row in ROWS) + "C\n")
    return path


@pytest.mark.parametrize("columns", TAILS)
def test_frealign_and_cistem_angles_are_relions_and_shifts_the_opposite(
    tmp_path: Path, stack: Path, columns: int
) -> None:
    done = convert([par(tmp_path, columns)], tmp_path / "out.star", stack=stack, given=OPTICS)
    table = read_particles(tmp_path / "out.star")
    particles = table.star.tables["particles"].columns
    assert (done.n, done.has_poses, table.pixel_size_A, table.image_index.tolist()) == (2, True, 2.0, [1, 0])
    assert particles["rlnImageName"][0] == "000002@images/a.mrcs"
    told = [particles[name][0] for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")]
    assert told == ["110.000000", "70.000000", "30.000000"]
    factor = 2.0 if columns < 16 else 1.0  # pixels before FREALIGN 9, Å since
    assert [float(particles[f"rlnOrigin{axis}Angst"][0]) for axis in "XY"] == [-4 * factor, 6 * factor]
    assert any("pixels" in note for note in done.notes) == (columns < 16)
    assert table.shifts_A is not None
    np.testing.assert_allclose(table.shifts_A[0], [4 * factor, -6 * factor])
    phase_shift = np.degrees(0.5) if columns == 17 else 0.0
    np.testing.assert_allclose(table.optics.phase_shift_deg, phase_shift, atol=1e-6)
    assert (table.optics.defocus_u_A[1], table.optics.defocus_v_A[1], table.optics.defocus_angle_deg[1]) == (
        22000.0,
        21500.0,
        -25.0,
    )


def test_an_image_of_a_par_pose_is_where_frealign_says_it_is(tmp_path: Path, stack: Path) -> None:
    """FREALIGN's README: Phi turns about Z, Theta about the new Y, Psi about the new Z; SHX, SHY displace in Å."""
    convert([par(tmp_path, 16)], tmp_path / "out.star", stack=stack, given=OPTICS)
    table = read_particles(tmp_path / "out.star")
    assert table.rotations is not None
    assert table.shifts_A is not None
    box, pixel_A = 32, 2.0
    point = np.array([4.0, 2.0, -3.0])  # voxels
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    blob = torch.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2 + (z - point[2]) ** 2) / 8)
    no_ctf = CTFParameters(
        *(torch.tensor([value], dtype=torch.float64) for value in (0.0, 0.0, 0.0, 300.0, 0.0, 1.0, 0.0))
    )
    pose = [torch.from_numpy(part[:1]) for part in (table.rotations, table.shifts_A)]
    image = ImageFormation(blob, pixel_A).images(pose[0], pose[1], no_ctf)[0].double()
    seen = [float((image * grid).sum() / image.sum()) for grid in (axis[None, :], axis[:, None])]
    # The frame turned by phi, theta, psi about its own axes; the image's axes are its first two.
    frame = Rotation.from_euler("ZYZ", [110.0, 70.0, 30.0], degrees=True).as_matrix()
    np.testing.assert_allclose(seen, (point @ frame)[:2] + np.array([4.0, -6.0]) / pixel_A, atol=0.02)


def test_images_that_cistem_marks_as_not_in_use_are_left_out(tmp_path: Path, stack: Path) -> None:
    path = par(tmp_path, 17)
    path.write_text(path.read_text().replace(" 7  22000", "-1  22000"))
    done = convert([path], tmp_path / "out.star", stack=stack, given=OPTICS)
    assert done.n == 1
    assert any("1 images" in note for note in done.notes)


CISTEM = """# Written by cisTEM
data_
loop_
_cisTEMPositionInStack #1
_cisTEMAnglePsi #2
_cisTEMAngleTheta #3
_cisTEMAnglePhi #4
_cisTEMXShift #5
_cisTEMYShift #6
_cisTEMDefocus1 #7
_cisTEMDefocus2 #8
_cisTEMDefocusAngle #9
_cisTEMPhaseShift #10
_cisTEMPixelSize #11
_cisTEMMicroscopeVoltagekV #12
_cisTEMMicroscopeCsMM #13
_cisTEMAmplitudeContrast #14
_cisTEMScore #15
_cisTEMStackFilename #16
2 30.0 70.0 110.0 4.0 -6.0 21000.0 20500.0 15.0 0.0 2.0 300.0 2.7 0.07 12.0 'images/a.mrcs'
1 -20.0 100.0 10.0 0.0 1.0 22000.0 21500.0 -25.0 0.5 2.0 200.0 2.7 0.07 12.0 'images/a.mrcs'
"""


@pytest.mark.usefixtures("stack")
def test_cistems_star_file_tells_its_optics(tmp_path: Path) -> None:
    (tmp_path / "cistem.star").write_text(CISTEM)
    done = convert([tmp_path / "cistem.star"], tmp_path / "out.star")
    table = read_particles(tmp_path / "out.star")
    assert table.optics.voltage_kV.tolist() == [300.0, 200.0]
    assert table.optics.amplitude_contrast.tolist() == [0.07, 0.07]
    assert table.star.tables["particles"].columns["rlnAngleRot"] == ["110.000000", "10.000000"]
    assert table.image_index.tolist() == [1, 0]
    assert done.notes == ("Not kept: cisTEMScore",)


def test_a_par_file_becomes_a_cs_file(tmp_path: Path, stack: Path) -> None:
    convert([par(tmp_path, 16)], tmp_path / "out.star", stack=stack, given=OPTICS)
    done = convert([par(tmp_path, 16)], tmp_path / "out.cs", stack=stack, given=OPTICS)
    assert [path.name for path in done.files] == ["out.cs", "out.csg"]
    star, cs = (read_particles(tmp_path / f"out.{kind}") for kind in ("star", "cs"))
    assert star.rotations is not None
    assert cs.rotations is not None
    np.testing.assert_allclose(cs.rotations, star.rotations, atol=1e-6)
    np.testing.assert_allclose(cs.shifts_A, star.shifts_A, atol=1e-6)
    assert cs.stack_paths[0].samefile(star.stack_paths[0])
    assert "metafile: '>out.cs'" in done.files[1].read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("100.0 -500", "-500", "expected 12, 13, 16 or 17 columns on line 2, found 15"),
        ("70.00 110.00", "70.00 abc", "expected numbers on line 2, found '2 30.00 70.00 abc"),
        ("70.00 110.00", "nan 110.00", "finite numbers on line 2"),
        ("  2  30", "  4  30", r"an image of 1 to 3 in a\.mrcs on line 2, found 4"),
        ("  2  30", "  1.5  30", "on line 2, found 1.5"),
        (" 7  21000", " 7.5  21000", "the whole number of a film as the eighth column on line 2, found 7.5"),
        (" 7  21000", " 1e19  21000", "the whole number of a film as the eighth column on line 2, found 1e"),
    ],
)
def test_a_broken_par_file_is_told_in_one_line(tmp_path: Path, stack: Path, old: str, new: str, message: str) -> None:
    path = par(tmp_path, 16)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message) as caught:
        convert([path], tmp_path / "out.star", stack=stack, given=OPTICS)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.star").exists()


def test_only_a_par_file_that_ends_in_a_row_is_said_to_be_cut_short(tmp_path: Path, stack: Path) -> None:
    path = par(tmp_path, 16)
    first, second = path.read_text().splitlines()[1:3]
    for lines, cut in (([first, second[:-9]], True), ([first, second[:-9], first], False), ([second + " 1"], False)):
        path.write_text("\n".join([first, *lines]) + "\nC\n")
        with pytest.raises(DataError, match="16 columns on line") as caught:
            convert([path], tmp_path / "out.star", stack=stack, given=OPTICS)
        assert ("cut short" in str(caught.value)) == cut
    path.write_bytes(stack.read_bytes())
    with pytest.raises(DataError, match=r"a \.par file, found images or a map"):
        convert([path], tmp_path / "out.star", stack=stack, given=OPTICS)


BARE = "data_particles\nloop_\n_rlnImageName\n_rlnClassNumber\n1@images/a.mrcs 0\n2@images/a.mrcs 2\n"


@pytest.mark.usefixtures("stack")
def test_particles_without_a_ctf_are_converted(tmp_path: Path) -> None:
    (tmp_path / "a.star").write_text(BARE)
    with pytest.raises(DataError, match="a column rlnDefocusU"):
        read_particles(tmp_path / "a.star")
    done = convert([tmp_path / "a.star"], tmp_path / "a.cs")
    records = read_cs(tmp_path / "a.cs").records
    assert (done.n, records["blob/idx"].tolist(), records["blob/shape"].tolist()) == (2, [0, 1], [[16, 16]] * 2)
    assert not {"ctf/df1_A", "ctf/accel_kv", "blob/psize_A", "alignments3D/class"} & {*(records.dtype.names or ())}
    convert([tmp_path / "a.cs"], tmp_path / "b.star")
    particles = read_star(tmp_path / "b.star").tables["particles"].columns
    assert list(particles["rlnImageName"]) == ["000001@images/a.mrcs", "000002@images/a.mrcs"]
    assert "rlnDefocusU" not in particles
    with pytest.raises(DataError, match=r"a\.cs: expected the pixel size|a\.cs: expected a field ctf/df1_A"):
        read_particles(tmp_path / "a.cs")


@pytest.mark.usefixtures("stack")
def test_particles_of_two_pixel_sizes_are_converted_with_their_own_shifts(tmp_path: Path) -> None:
    rows = ["1@images/a.mrcs 1 10000 10 20 30 6.0", "2@images/a.mrcs 2 10000 40 50 60 6.0"]
    names = ["ImageName", "OpticsGroup", "DefocusU", "AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst"]
    optics = "_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n_rlnImagePixelSize\n"
    (tmp_path / "a.star").write_text(
        f"data_optics\nloop_\n{optics}1 300 2.7 0.1 2.0\n2 300 2.7 0.1 3.0\n\ndata_particles\nloop_\n"
        + "\n".join([*(f"_rln{name}" for name in names), *rows, ""])
    )
    with pytest.raises(DataError, match="one pixel size"):
        read_particles(tmp_path / "a.star")
    convert([tmp_path / "a.star"], tmp_path / "a.cs")
    records = read_cs(tmp_path / "a.cs").records
    assert records["blob/psize_A"].tolist() == [2.0, 3.0]
    assert records["alignments3D/shift"][:, 0].tolist() == [3.0, 2.0]


def test_what_a_par_file_does_not_tell_has_to_be_given(tmp_path: Path, stack: Path) -> None:
    path = par(tmp_path, 16)
    with pytest.raises(UsageError, match="give --voltage, --cs, --amplitude-contrast"):
        convert([path], tmp_path / "out.star", stack=stack)
    done = convert([path], tmp_path / "out.star", stack=stack, given=GivenOptics(None, 300.0, 0.0, 0.1))
    assert any("2 Å, is that of a.mrcs" in note for note in done.notes)
    with pytest.raises(UsageError, match="--voltage must be above 1"):
        convert([path], tmp_path / "out.star", stack=stack, given=GivenOptics(2.0, 0.3, 2.7, 0.1), overwrite=True)
    with pytest.raises(UsageError, match="--stack"):
        convert([path], tmp_path / "new.star", given=OPTICS)
    with pytest.raises(DataError, match="convert it first"):
        read_particles(path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.star", "b.star"], "ends in .cs"),
        (["a.cs", "b.cs"], "ends in .star"),
        (["a.cs", "b.star", "c.star"], "pass-through"),
        (["a.txt", "b.star"], "reads .star, .cs, .par"),
        (["a.star", "b.txt"], "writes .star or .cs"),
        (["a.cs", "a.star"], "a.star exists"),
    ],
)
def test_files_that_do_not_go_together_are_refused(
    tmp_path: Path, files: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.star").write_text("data_\nloop_\n_rlnImageName\n1@a.mrcs\n")
    assert main(["convert", *(str(tmp_path / name) for name in files)]) == 2
    assert message in capsys.readouterr().err


def test_the_command_says_what_it_kept(tmp_path: Path, stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(par(tmp_path, 16)), str(tmp_path / "out.star")]
    assert main(["convert", *files, "--stack", str(stack), "--voltage", "300", "--cs", "2.7"]) == 2
    assert "--amplitude-contrast" in capsys.readouterr().err
    options = ["--stack", str(stack), "--voltage", "300", "--cs", "2.7", "--amplitude-contrast", "0.1"]
    assert main(["convert", *files, *options]) == 0
    out = capsys.readouterr().out
    assert "Not kept: MAG, OCC, LogP, SIGMA, SCORE, CHANGE" in out
    assert "Wrote 2 particles with poses to" in out
    assert main(["convert", files[1]]) == 2


def test_images_that_are_not_there_keep_their_names(tmp_path: Path, example_particles: Path) -> None:
    text = example_particles.read_text().replace("_0.mrcs", "_0.mrc").replace("Falcon_2012", "away/Falcon_2012")
    (tmp_path / "a.star").write_text(text)
    done = convert([tmp_path / "a.star"], tmp_path / "a.cs")
    assert any("stacks were not found, and keep their names, like away/Falcon" in note for note in done.notes)
    assert any("rlnCoordinateX, rlnCoordinateY (cryoSPARC wants" in note for note in done.notes)
    back = convert([tmp_path / "a.cs"], tmp_path / "b.star")
    assert any("ends in .mrcs" in note for note in back.notes)
    before, after = (read_star(tmp_path / f"{name}.star").tables["particles"].columns for name in "ab")
    for name in ("rlnImageName", "rlnMicrographName", "rlnOpticsGroup"):
        assert list(after[name]) == list(before[name])


def test_a_phantom_seen_through_a_cs_file_is_the_same(tmp_path: Path) -> None:
    """Poses that went through .cs give the images that the STAR file's give."""
    volume = make_phantom(24, seed=1, n_blobs=5)
    former = ImageFormation(volume, 3.0)
    angles = np.array([[10.0, 80.0, -100.0], [170.0, 30.0, 40.0]])
    lines = [f"{i + 1}@a.mrcs 1 12000 11000 30 {a[0]} {a[1]} {a[2]} 5.5 -2.5" for i, a in enumerate(angles)]
    names = ["ImageName", "OpticsGroup", "DefocusU", "DefocusV", "DefocusAngle", "AngleRot", "AngleTilt", "AnglePsi"]
    head = "\n".join(f"_rln{name}" for name in [*names, "OriginXAngst", "OriginYAngst"])
    (tmp_path / "a.star").write_text(
        "data_optics\nloop_\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n"
        f"_rlnImagePixelSize\n1 300 2.7 0.1 3.0\ndata_particles\nloop_\n{head}\n" + "\n".join(lines) + "\n"
    )
    write_stack(tmp_path / "a.mrcs", 2, (24, 24), 3.0, [np.random.default_rng(0).normal(size=(2, 24, 24))])
    convert([tmp_path / "a.star"], tmp_path / "a.cs")
    images = []
    for kind in ("star", "cs"):
        table = read_particles(tmp_path / f"a.{kind}")
        assert table.rotations is not None
        assert table.shifts_A is not None
        o = table.optics
        ctf = CTFParameters(
            *(
                torch.from_numpy(column)
                for column in (
                    o.defocus_u_A,
                    o.defocus_v_A,
                    o.defocus_angle_deg,
                    o.voltage_kV,
                    o.cs_mm,
                    o.amplitude_contrast,
                    o.phase_shift_deg,
                )
            )
        )
        images.append(former.images(torch.from_numpy(table.rotations), torch.from_numpy(table.shifts_A), ctf))
    assert float((images[0] - images[1]).norm() / images[0].norm()) < 1e-5
