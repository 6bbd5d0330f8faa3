"""cryoSPARC's files: what is read means what cryoSPARC means by it, and what is broken is told in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hoarfrost import convert
from hoarfrost.errors import DataError
from hoarfrost.io.columns import SIGN_COLUMN
from hoarfrost.io.cs import read_cs, write_cs
from hoarfrost.io.cs_particles import cs_records, read_cs_particles
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.particles_star import read_particles, read_poses
from hoarfrost.io.star import read_star
from hoarfrost.io.star_optics import particle_table, read_optics
from hoarfrost.particles.stack import ParticleStack

N = 5
BOX = 16


def fields(n: int = N) -> dict[str, Any]:
    """The fields of a refinement in cryoSPARC whose shifts are in pixels of a smaller box."""
    rng = np.random.default_rng(0)
    return {
        "uid": rng.integers(0, 2**63, n).astype(np.uint64),
        "blob/path": np.array([f">J1/extract/mic{i // 3}.mrc".encode() for i in range(n)]),
        "blob/idx": (np.arange(n) % 3).astype(np.uint32),
        "blob/shape": np.full((n, 2), BOX, np.uint32),
        "blob/psize_A": np.full(n, 1.5, np.float32),
        "ctf/exp_group_id": (np.arange(n) % 2).astype(np.uint32),
        "ctf/accel_kv": np.full(n, 300, np.float32),
        "ctf/cs_mm": np.full(n, 2.7, np.float32),
        "ctf/amp_contrast": np.full(n, 0.1, np.float32),
        "ctf/df1_A": rng.uniform(1e4, 2e4, n).astype(np.float32),
        "ctf/df2_A": rng.uniform(1e4, 2e4, n).astype(np.float32),
        "ctf/df_angle_rad": rng.uniform(-1.5, 1.5, n).astype(np.float32),
        "ctf/phase_shift_rad": np.zeros(n, np.float32),
        "alignments3D/pose": rng.normal(size=(n, 3)).astype(np.float32),
        "alignments3D/shift": rng.normal(size=(n, 2)).astype(np.float32),
        "alignments3D/psize_A": np.full(n, 3.0, np.float32),
        "alignments3D/split": (np.arange(n) % 2).astype(np.uint32),
    }


def write(path: Path, columns: dict[str, Any]) -> Path:
    records = np.empty(len(next(iter(columns.values()))), [(name, v.dtype, v.shape[1:]) for name, v in columns.items()])
    for name, values in columns.items():
        records[name] = values
    write_cs(path, records)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project folder with a job's particles, and the images in another job's folder."""
    (tmp_path / "J1" / "extract").mkdir(parents=True)
    (tmp_path / "J2").mkdir()
    images = np.random.default_rng(1).normal(size=(3, BOX, BOX))
    for name in ("mic0", "mic1"):
        write_stack(tmp_path / "J1" / "extract" / f"{name}.mrc", 3, (BOX, BOX), 1.5, [images])
    return tmp_path


def test_a_refinement_is_read_as_cryosparc_means_it(project: Path) -> None:
    columns = fields()
    table = ParticleStack.open(write(project / "J2" / "particles.cs", columns)).table
    assert (table.n, table.box, table.pixel_size_A) == (N, BOX, 1.5)
    assert [path.name for path in table.stack_paths] == ["mic0.mrc", "mic1.mrc"]
    assert table.image_index.tolist() == [0, 1, 2, 0, 1]
    assert table.optics.optics_group.tolist() == [1, 2, 1, 2, 1]
    np.testing.assert_allclose(table.optics.defocus_u_A, columns["ctf/df1_A"], rtol=1e-7)
    np.testing.assert_allclose(np.radians(table.optics.defocus_angle_deg), columns["ctf/df_angle_rad"], rtol=1e-7)
    assert table.rotations is not None
    assert table.shifts_A is not None
    turned = Rotation.from_rotvec(columns["alignments3D/pose"]).as_matrix()
    np.testing.assert_allclose(table.rotations, turned.transpose(0, 2, 1), atol=1e-7)
    # The pixels are those of the alignment, twice as large; RELION's origin and cryoSPARC's shift have one sign.
    np.testing.assert_allclose(table.shifts_A, -3.0 * columns["alignments3D/shift"], rtol=1e-6, atol=1e-8)
    assert table.star.tables["particles"].columns["rlnRandomSubset"] == ["1", "2", "1", "2", "1"]


def test_images_are_found_in_the_data_directory(project: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (project / "J1").rename(elsewhere / "J1")
    path = write(project / "J2" / "particles.cs", fields())
    assert read_particles(path, elsewhere).n == N
    with pytest.raises(DataError, match=r"row 1: expected the image file J1/extract/mic0\.mrc"):
        read_particles(path)


def test_a_pass_through_file_is_joined_by_uid(tmp_path: Path) -> None:
    columns = fields()
    ctf = {name: columns.pop(name) for name in list(columns) if name.startswith("ctf/")}
    main = write(tmp_path / "a.cs", columns)
    with pytest.raises(DataError, match=r"a\.cs: expected a field ctf/df1_A, found none; .*pass-through"):
        read_optics(read_cs_particles(main)[0])
    order = np.array([3, 0, 4, 2, 1])
    shuffled = {name: values[order] for name, values in {"uid": columns["uid"], **ctf}.items()}
    star, _ = read_cs_particles(main, write(tmp_path / "b.cs", shuffled))
    np.testing.assert_allclose(read_optics(star).defocus_u_A, ctf["ctf/df1_A"], rtol=1e-7)
    shuffled["uid"] = shuffled["uid"] + np.uint64(1)
    with pytest.raises(DataError, match=r"c\.cs: expected the particles of a\.cs, found 5 of 5 missing"):
        read_cs_particles(main, write(tmp_path / "c.cs", shuffled))
    shuffled["uid"] = np.zeros(N, np.uint64)
    with pytest.raises(DataError, match="each uid once"):
        read_cs_particles(main, write(tmp_path / "d.cs", shuffled))
    shuffled["ctf/df1_A"] = np.full(N, np.nan, np.float32)
    shuffled["uid"] = columns["uid"]
    with pytest.raises(DataError, match=r"e\.cs, row 1: expected finite numbers in ctf/df1_A, found nan"):
        read_cs_particles(main, write(tmp_path / "e.cs", shuffled))


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    columns = fields()
    del columns["alignments3D/pose"]
    columns["alignments_class_0/pose"] = np.zeros((N, 3), np.float32)
    columns["ctf/tilt_A"] = np.ones((N, 2), np.float32)
    columns["ctf/anisomag"] = np.tile(np.float32([1, 0, 0, 1]), (N, 1))
    star, notes = read_cs_particles(write(tmp_path / "a.cs", columns))
    assert "rlnAngleRot" not in star.tables["particles"].columns
    assert notes == (
        "beam tilt (ctf/tilt_A) is ignored",
        "poses are read from alignments3D alone, and those in alignments_class_0 are ignored",
    )


def test_coordinates_are_pixels_of_the_micrograph(tmp_path: Path) -> None:
    columns = fields()
    columns["location/micrograph_path"] = np.full(N, b">J1/mic.mrc")
    columns["location/micrograph_shape"] = np.tile(np.uint32([4000, 6000]), (N, 1))
    columns["location/center_x_frac"] = np.full(N, 0.25, np.float32)
    columns["location/center_y_frac"] = np.full(N, 0.5, np.float32)
    particles = read_cs_particles(write(tmp_path / "a.cs", columns))[0].tables["particles"].columns
    assert particles["rlnMicrographName"][0] == "J1/mic.mrc"
    assert (particles["rlnCoordinateX"][0], particles["rlnCoordinateY"][0]) == ("1500.000000", "2000.000000")


FAULTS: list[tuple[str, Any, str]] = [
    ("blob/path", None, "a field blob/path"),
    ("blob/idx", None, "a field blob/idx"),
    ("blob/psize_A", None, "a field blob/psize_A"),
    ("ctf/df1_A", None, "a field ctf/df1_A"),
    ("ctf/df1_A", np.array([1, 2, np.inf, 4, 5], np.float32), "row 3: expected finite numbers in ctf/df1_A, found inf"),
    ("ctf/accel_kv", np.full(N, 3e5, np.float32), "row 1: expected finite numbers from 1 to 5000 in ctf/accel_kv"),
    ("ctf/amp_contrast", np.full(N, 7, np.float32), "from 0 to 1 in ctf/amp_contrast"),
    ("ctf/cs_mm", np.full(N, b"x"), "expected numbers in ctf/cs_mm, found texts"),
    ("blob/psize_A", np.array([1.5, 1.5, 0, 1.5, 1.5], np.float32), "row 3: .*blob/psize_A, found 0"),
    ("blob/psize_A", np.array([1.5, 1.5, 2, 1.5, 1.5], np.float32), "one pixel size for all particles"),
    ("blob/shape", np.tile(np.uint32([16, 18]), (N, 1)), "row 1: expected square images in blob/shape, found 18 × 16"),
    ("blob/shape", np.full((N, 2), 32, np.uint32), "images of rlnImageSize 32 pixels"),
    ("blob/idx", np.full(N, 7, np.uint32), "row 1: expected an image of 1 to 3 in .*, found image 8"),
    ("blob/idx", np.full(N, -1, np.int32), "row 1: expected a number from 0 in blob/idx, found -1"),
    ("blob/idx", np.zeros(N, np.float32), "whole numbers in blob/idx, found numbers"),
    ("blob/path", np.zeros(N, np.uint32), "texts in blob/path, found whole numbers"),
    ("blob/path", np.full(N, b">\xff"), "texts in UTF-8"),
    ("blob/path", np.full(N, b""), "row 1: expected rlnImageName like"),
    ("alignments3D/pose", np.zeros((N, 4), np.float32), "3 numbers a particle in alignments3D/pose, found 4 numbers"),
    ("blob/sign", np.full(N, 0.5, np.float32), "row 1: expected 1 or -1 in blob/sign, found 0.5"),
]


@pytest.mark.parametrize(("name", "value", "message"), FAULTS)
def test_faults_are_told_in_one_line(project: Path, name: str, value: Any, message: str) -> None:
    columns = fields()
    if value is None:
        del columns[name]
    else:
        columns[name] = value
    with pytest.raises(DataError, match=message) as caught:
        read_particles(write(project / "J2" / "particles.cs", columns))
    assert "\n" not in str(caught.value)


def test_poses_that_are_none_stop_only_who_uses_them(project: Path) -> None:
    columns = fields()
    columns["alignments3D/pose"][2] = np.nan
    columns["alignments3D/shift"][3] = np.inf
    table = read_particles(write(project / "J2" / "particles.cs", columns))
    assert table.has_poses
    with pytest.raises(DataError, match="row 3: expected a number in rlnAngleRot of data_particles, found 'nan'"):
        _ = table.rotations


def test_a_microscope_that_makes_no_sense_is_converted_all_the_same(tmp_path: Path) -> None:
    columns = fields()
    columns["ctf/accel_kv"] = np.zeros(N, np.float32)
    columns["blob/psize_A"] = np.zeros(N, np.float32)
    path = write(tmp_path / "a.cs", columns)
    with pytest.raises(DataError, match="from 1 to 5000 in ctf/accel_kv, found 0"):
        read_particles(path)
    assert convert([path], tmp_path / "b.star").n == N
    assert read_star(tmp_path / "b.star").tables["optics"].columns["rlnVoltage"] == ["0", "0"]


def test_pixels_are_multiplied_by_the_sign_that_the_file_tells(project: Path) -> None:
    columns = fields()
    as_they_are = ParticleStack.open(write(project / "J2" / "a.cs", columns)).read(np.arange(N))
    columns["blob/sign"] = np.array([1, -1, 0, -1, 1], np.float32)
    table = ParticleStack.open(write(project / "J2" / "b.cs", columns))
    signs = [1, -1, 1, -1, 1]
    assert table.table.star.tables["particles"].columns[SIGN_COLUMN] == [str(sign) for sign in signs]
    expected = as_they_are.numpy() * np.array(signs, np.float32)[:, None, None]
    np.testing.assert_array_equal(table.read(np.arange(N)).numpy(), expected)
    columns["blob/sign"] = np.ones(N, np.float32)
    assert SIGN_COLUMN not in read_cs_particles(write(project / "J2" / "c.cs", columns))[0].tables["particles"].columns


def test_a_voltage_that_the_microscope_s_own_field_contradicts_is_told(tmp_path: Path) -> None:
    columns = fields()
    columns["mscope_params/accel_kv"] = np.full(N, 200, np.float32)
    columns["mscope_params/cs_mm"] = np.full(N, 2.7, np.float32)
    _, notes = read_cs_particles(write(tmp_path / "a.cs", columns))
    assert [note for note in notes if "differ" in note] == [
        "ctf/accel_kv and mscope_params/accel_kv differ: find out which is right; that of ctf is used"
    ]


def test_other_kinds_of_file_are_recognised(tmp_path: Path) -> None:
    objects = np.empty(2, [("uid", "u8"), ("blob/path", "O")])
    with (tmp_path / "objects.cs").open("wb") as file:
        np.lib.format.write_array(file, objects, allow_pickle=True)
    with (tmp_path / "plain.cs").open("wb") as file:
        np.lib.format.write_array(file, np.zeros(3))
    contents = {
        "stream.cs": (b"\x94CSDAT" + bytes(50), r"CSDAT.*cryosparc-tools: Dataset\.load\(\"stream\.cs\"\)\.save"),
        "newer.cs": (b"\x95CSDAT" + bytes(50), "CSDAT.*cryosparc-tools"),
        "parquet.cs": (b"PAR1" + bytes(50), "Parquet"),
        "group.csg": (b"group:\n  type: particle\n", r"group file \(\.csg\); give the \.cs file"),
        "group.cs": (b"created: 2024\n", "group file"),
        "empty.cs": (b"", "an empty file"),
        "zeros.cs": (bytes(100), "something else"),
        "objects.cs": (None, "Python objects"),
        "plain.cs": (None, "a table of named fields"),
    }
    for name, (content, message) in contents.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            read_particles(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        read_particles(tmp_path / "none.cs")


def test_a_header_that_claims_more_than_there_is_allocates_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.cs", fields())
    content = path.read_bytes()
    path.write_bytes(content.replace(b"'shape': (5,)", b"'shape': (50000000000,)").replace(b"          \n", b"\n"))
    with pytest.raises(DataError, match="the file is cut short; copy it again"):
        read_cs(path)


def test_no_damage_gives_anything_but_one_line(tmp_path: Path) -> None:
    content = write(tmp_path / "a.cs", fields()).read_bytes()
    rng = np.random.default_rng(0)
    n_told = 0
    for trial in range(300):
        damaged = bytearray(content[: rng.integers(0, len(content) + 1)] if trial % 2 else content)
        for place in rng.integers(0, 1200, rng.integers(0, 4)):
            damaged[place % max(len(damaged), 1) : place % max(len(damaged), 1) + 1] = bytes([rng.integers(256)])
        (tmp_path / "a.cs").write_bytes(damaged)
        message = "\n"
        try:
            read_cs_particles(tmp_path / "a.cs")
        except DataError as error:
            message = str(error)
            n_told += 1
        assert message.count("\n") == (message == "\n")
    assert n_told > 150


finite = st.floats(-180, 180, width=32)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.tuples(finite, st.floats(0, 180, width=32), finite, finite, finite), st.floats(1e3, 6e4, width=32)
        ),
        min_size=1,
        max_size=6,
    )
)
def test_star_to_cs_and_back_keeps_poses_and_ctf(rows: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("round")
    names = ["ImageName", "MicrographName", "OpticsGroup", "AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst"]
    names += ["OriginYAngst", "DefocusU", "DefocusV", "DefocusAngle", "PhaseShift"]
    head = "\n".join(f"_rln{name}" for name in names)
    optics = (
        "_rlnOpticsGroup _rlnVoltage _rlnSphericalAberration _rlnAmplitudeContrast _rlnImagePixelSize _rlnImageSize"
    )
    lines = [
        f"{i + 1}@a.mrcs m.mrc {i % 2 + 3} {' '.join(repr(v) for v in pose)} {u} {u / 2} {pose[0] / 2} {pose[1] / 3}"
        for i, (pose, u) in enumerate(rows)
    ]
    (folder / "a.star").write_text(
        "data_optics\nloop_\n" + optics.replace(" ", "\n") + "\n3 300 2.7 0.1 1.25 64\n4 200 2.0 0.07 1.25 64\n"
        f"data_particles\nloop_\n{head}\n" + "\n".join(lines) + "\n"
    )
    before = read_star(folder / "a.star")
    particles, told = particle_table(before), read_optics(before)
    poses = read_poses(before.path, particles, told.pixel_size_A)
    assert poses is not None
    boxes = np.full(len(rows), 64.0)
    records, lost = cs_records(before, particles, told, boxes, poses)
    assert lost == ()
    write_cs(folder / "a.cs", records)
    after, notes = read_cs_particles(folder / "a.cs")
    assert notes == ()
    again = read_optics(after)
    new_poses = read_poses(after.path, particle_table(after), again.pixel_size_A)
    assert new_poses is not None
    np.testing.assert_allclose(new_poses[0], poses[0], atol=1e-6)
    np.testing.assert_allclose(new_poses[1], poses[1], rtol=3e-7, atol=1e-6)
    for name in ("defocus_u_A", "defocus_v_A", "voltage_kV", "cs_mm", "amplitude_contrast"):
        np.testing.assert_allclose(getattr(again, name), getattr(told, name), rtol=1e-7)
    for name in ("defocus_angle_deg", "phase_shift_deg"):
        np.testing.assert_allclose(getattr(again, name), getattr(told, name), rtol=3e-7, atol=1e-6)
    assert again.optics_group.tolist() == told.optics_group.tolist()
    names_before, names_after = (t.columns["rlnImageName"] for t in (particles, particle_table(after)))
    assert [name.lstrip("0") for name in names_after] == list(names_before)
    # A second time nothing changes: the numbers are those of 32 bits by now, but for the decimals of what is computed.
    second, _ = cs_records(after, particle_table(after), again, boxes, new_poses)
    for name in records.dtype.names or ():
        if name == "alignments3D/pose":  # a half turn is the same about the opposite axis
            turns = (Rotation.from_rotvec(r[name]).as_matrix() for r in (second, records))
            np.testing.assert_allclose(*turns, atol=1e-6)
        elif records[name].dtype.kind == "f":
            np.testing.assert_allclose(second[name], records[name], rtol=3e-7, atol=1e-8, err_msg=name)
        else:
            np.testing.assert_array_equal(second[name], records[name], err_msg=name)
