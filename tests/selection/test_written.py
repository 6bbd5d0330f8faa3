"""What is written of chosen particles: every column, poses, CTFs and shifts as they were, from wherever it lies."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mrcfile
import numpy as np
import pytest

import hoarfrost
from hoarfrost.errors import DataError
from hoarfrost.io.cs import read_cs
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.particles_star import ParticleTable, read_particles
from hoarfrost.io.star import StarTable, read_star, write_star
from hoarfrost.particles.stack import ParticleStack

N, BOX, PIXEL_SIZE_A = 30, 24, 2.0
SMALL = 16
EXACT, OF_32_BITS = 1e-9, 2e-6


def same_particles(found: ParticleTable, source: ParticleTable, rows: np.ndarray, tolerance: float) -> None:
    """Assert that optics and poses are those of the rows, whatever the size of pixels."""
    for field in dataclasses.fields(source.optics):
        values, told = getattr(source.optics, field.name), getattr(found.optics, field.name)
        if isinstance(values, np.ndarray) and field.name not in ("pixel_sizes_A", "boxes"):
            np.testing.assert_allclose(told, values[rows], rtol=tolerance, atol=1e-9, err_msg=field.name)
    assert found.rotations is not None
    assert found.shifts_A is not None
    assert source.rotations is not None
    assert source.shifts_A is not None
    np.testing.assert_allclose(found.rotations, source.rotations[rows], atol=max(tolerance, 1e-8))
    np.testing.assert_allclose(found.shifts_A, source.shifts_A[rows], atol=5 * max(tolerance, 2e-7))


def images(path: Path) -> np.ndarray:
    stack = ParticleStack.open(path)
    return stack.read(np.arange(stack.n_images)).numpy()


@pytest.mark.parametrize("place", ["out.star", "project/deep/out.star", "run/out.star"])
def test_a_star_file_keeps_columns_groups_and_images_wherever_it_lies(run: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    done = hoarfrost.select(run, tmp_path / place, max_junk=0.6)
    before, after = (read_star(path).tables for path in (run / "particles.star", tmp_path / place))
    assert after["optics"].columns == before["optics"].columns
    for name, words in before["particles"].columns.items():
        assert [words[row] for row in done.rows] == after["particles"].columns[name], name
    same_particles(read_particles(tmp_path / place), read_particles(run / "particles.star"), done.rows, EXACT)
    np.testing.assert_array_equal(images(tmp_path / place), images(run / "particles.star")[done.rows])


def test_images_are_named_anew_where_their_names_would_lead_nowhere(run: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name in ("run", "images"):
        (tmp_path / name).rename(project / name)
    done = hoarfrost.select(project / "run", tmp_path / "out.star", classes=[1])
    names = read_star(tmp_path / "out.star").tables["particles"].columns["rlnImageName"]
    assert names[0] == "000001@project/images/a.mrcs"
    np.testing.assert_array_equal(images(tmp_path / "out.star"), images(project / "run/particles.star")[done.rows])


def test_a_cs_file_keeps_every_field(cs: Path, tmp_path: Path) -> None:
    done = hoarfrost.select(cs, tmp_path / "out.cs", n_random=11)
    before, after = read_cs(cs).records, np.load(tmp_path / "out.cs", allow_pickle=False)
    assert after.dtype.names == before.dtype.names
    for name in after.dtype.names:
        np.testing.assert_array_equal(after[name], before[name][done.rows])
    assert done.files == (tmp_path / "out.cs", tmp_path / "out.csg")
    assert "num_items: 11" in (tmp_path / "out.csg").read_text()
    same_particles(read_particles(tmp_path / "out.cs"), read_particles(cs), done.rows, EXACT)
    np.testing.assert_array_equal(images(tmp_path / "out.cs"), images(cs)[done.rows])


@pytest.mark.parametrize("box", [None, SMALL])
@pytest.mark.parametrize(("kind", "to"), [("star", "star"), ("star", "cs"), ("cs", "star"), ("cs", "cs")])
def test_optics_poses_and_shifts_are_those_of_the_rows(
    star: Path, cs: Path, tmp_path: Path, kind: str, to: str, box: int | None
) -> None:
    source, output = {"star": star, "cs": cs}[kind], tmp_path / f"out.{to}"
    done = hoarfrost.select(source, output, classes=[1, 2], box=box)
    assert done.n == 20
    found, before = read_particles(output), read_particles(source)
    same_particles(found, before, done.rows, EXACT if kind == to == "star" else OF_32_BITS)
    factor = 1 if box is None else BOX / SMALL
    assert (found.box, found.pixel_size_A) == (box or BOX, pytest.approx(PIXEL_SIZE_A * factor))
    assert found.warnings == ()
    if box is None:
        np.testing.assert_array_equal(images(output), images(source)[done.rows])
    else:
        assert found.stack_paths == (tmp_path / "out.mrcs",)
        assert found.stacks[0].pixel_size_A == pytest.approx(PIXEL_SIZE_A * factor)
        means = images(source)[done.rows].mean(axis=(1, 2))
        np.testing.assert_allclose(images(output).mean(axis=(1, 2)), means, rtol=1e-5)


def test_shrunk_particles_tell_their_size_and_where_they_come_from(star: Path, tmp_path: Path) -> None:
    hoarfrost.select(star, tmp_path / "out.star", box=SMALL, max_junk=0.5)
    tables = read_star(tmp_path / "out.star").tables
    assert tables["optics"].columns["rlnImageSize"] == ["16", "16"]
    assert tables["optics"].columns["rlnImagePixelSize"] == ["3", "3"]
    before = read_star(star).tables["particles"].columns
    junk = np.array([float(word) for word in before["hoarfrostJunkProbability"]])
    names = [before["rlnImageName"][row] for row in np.flatnonzero(junk <= 0.5)]
    after = tables["particles"].columns
    assert after["rlnImageOriginalName"] == names
    assert after["rlnImageName"] == [f"{number:06d}@out.mrcs" for number in range(1, len(names) + 1)]
    assert after["rlnOriginXAngst"] == [before["rlnOriginXAngst"][row] for row in np.flatnonzero(junk <= 0.5)]
    # Once more: the names of the first images stay.
    hoarfrost.select(tmp_path / "out.star", tmp_path / "once.star", box=SMALL, classes=[1])
    again = read_star(tmp_path / "once.star").tables["particles"].columns
    assert set(again["rlnImageOriginalName"]) < set(names)


def test_cryosparcs_shifts_are_in_the_new_pixels(cs: Path, tmp_path: Path) -> None:
    records = read_cs(cs).records.copy()
    # As of a refinement at another size than that of the images.
    records["alignments3D/psize_A"] *= 2
    records["alignments3D/shift"] /= 2
    np.save(tmp_path / "other.npy", records)
    (tmp_path / "other.npy").rename(cs)
    hoarfrost.select(cs, tmp_path / "out.cs", box=SMALL)
    small = np.load(tmp_path / "out.cs")
    np.testing.assert_allclose(small["blob/psize_A"], 3.0)
    np.testing.assert_array_equal(small["blob/shape"], np.full((N, 2), SMALL))
    np.testing.assert_array_equal(small["blob/idx"], np.arange(N))
    assert set(small["blob/path"]) == {b">out.mrcs"}
    np.testing.assert_allclose(small["alignments3D/psize_A"], 6.0)
    in_A = records["alignments3D/shift"] * records["alignments3D/psize_A"][:, None]
    np.testing.assert_allclose(small["alignments3D/shift"] * small["alignments3D/psize_A"][:, None], in_A, rtol=1e-5)
    for name in ("uid", "ctf/df1_A", "alignments3D/pose", "alignments3D/split", "location/micrograph_path"):
        np.testing.assert_array_equal(small[name], records[name])


@pytest.mark.parametrize("box", [None, SMALL])
def test_a_file_of_relion_3_0_becomes_one_of_3_1(relion30: Path, star: Path, tmp_path: Path, box: int | None) -> None:
    done = hoarfrost.select(relion30, tmp_path / "out.star", max_junk=0.6, box=box)
    before, after = read_particles(relion30), read_particles(tmp_path / "out.star")
    tables = after.star.tables
    assert tables["optics"].columns["rlnVoltage"] == ["300", "200"]
    assert tables["optics"].columns["rlnImageSize"] == [f"{box or BOX}"] * 2
    assert after.pixel_size_A == pytest.approx(PIXEL_SIZE_A * BOX / (box or BOX))
    group = after.optics.optics_group
    assert {*zip(group.tolist(), after.optics.voltage_kV.tolist(), strict=True)} == {(1, 300.0), (2, 200.0)}
    np.testing.assert_array_equal(after.optics.voltage_kV, before.optics.voltage_kV[done.rows])
    np.testing.assert_allclose(after.optics.defocus_u_A, before.optics.defocus_u_A[done.rows])
    assert before.shifts_A is not None
    assert after.shifts_A is not None
    np.testing.assert_allclose(after.shifts_A, before.shifts_A[done.rows], atol=1e-5)
    gone = {"rlnVoltage", "rlnMagnification", "rlnDetectorPixelSize", "rlnOriginX", "rlnOriginY"}
    assert not gone & tables["particles"].columns.keys()
    # The same particles in the other dialect come to the same file.
    other = hoarfrost.select(star, tmp_path / "other.star", max_junk=0.6, box=box)
    assert other.rows.tolist() == done.rows.tolist()
    twin = read_particles(tmp_path / "other.star")
    np.testing.assert_allclose(after.rotations, twin.rotations, atol=1e-9)
    np.testing.assert_allclose(after.shifts_A, twin.shifts_A, atol=1e-5)


def test_pixels_of_3_1_columns_shrink_with_the_images(star: Path, tmp_path: Path) -> None:
    table = read_star(star).tables
    priors = {"rlnOriginXPrior": ["6.0"] * N, "rlnOriginXPriorAngst": ["12.0"] * N}
    write_star(star, [table["optics"], StarTable("particles", {**table["particles"].columns, **priors})])
    hoarfrost.select(star, tmp_path / "out.star", box=SMALL, n_random=3)
    columns = read_star(tmp_path / "out.star").tables["particles"].columns
    assert (columns["rlnOriginXPrior"], columns["rlnOriginXPriorAngst"]) == (["4"] * 3, ["12.0"] * 3)


def test_a_particle_is_at_the_same_place_in_a_smaller_image(star: Path, tmp_path: Path) -> None:
    """A blob at each particle's shift, in images of odd size too: RELION's origin, −t, still leads to it."""
    table = read_particles(star)
    assert table.shifts_A is not None
    for box in (BOX, BOX + 1):
        axis_A = (np.arange(box) - box // 2) * PIXEL_SIZE_A
        blobs = [
            np.exp(-((axis_A[None, :] - x) ** 2 + (axis_A[:, None] - y) ** 2) / (2 * 5.0**2)) for x, y in table.shifts_A
        ]
        for number, stack in enumerate(table.stack_paths):
            with mrcfile.open(stack, "r+") as file:
                file.set_data(np.stack(blobs[number::2]).astype(np.float32))
                file.voxel_size = PIXEL_SIZE_A
        sized = star.read_text().replace(" 24 2\n", f" {box} 2\n")
        star.write_text(sized.replace(" 25 2\n", f" {box} 2\n"))
        hoarfrost.select(star, tmp_path / "out.star", box=SMALL, overwrite=True)
        small = read_particles(tmp_path / "out.star")
        assert small.shifts_A is not None
        axis_A = (np.arange(SMALL) - SMALL // 2) * small.pixel_size_A
        for image, (x, y) in zip(images(tmp_path / "out.star"), small.shifts_A, strict=True):
            centre = (image * axis_A).sum() / image.sum(), (image * axis_A[:, None]).sum() / image.sum()
            np.testing.assert_allclose(centre, (x, y), atol=0.05)


def test_sixteen_bits_are_written_if_asked(star: Path, tmp_path: Path) -> None:
    for name, options in (("whole", {}), ("half", {"float16": True})):
        hoarfrost.select(star, tmp_path / f"{name}.star", box=SMALL, **options)
    whole, half = (mrcfile.read(tmp_path / f"{name}.mrcs") for name in ("whole", "half"))
    assert (whole.dtype, half.dtype) == (np.float32, np.float16)
    assert mrcfile.validate(tmp_path / "half.mrcs")
    np.testing.assert_allclose(half, whole, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(images(tmp_path / "half.star"), half.astype(np.float32))


@pytest.mark.parametrize(
    ("value", "options", "told"),
    [
        (np.nan, {}, r"row 6: expected finite pixel values, found NaN or infinity in image 3 of .*b\.mrcs; leave this"),
        (1e8, {"float16": True}, r"row 6: expected values up to 65504 for --float16, found .* leave out --float16"),
    ],
)
def test_an_image_that_cannot_be_written_is_told_with_its_row_and_leaves_nothing(
    star: Path, tmp_path: Path, value: float, options: dict[str, bool], told: str
) -> None:
    with mrcfile.open(tmp_path / "images" / "b.mrcs", "r+") as file:
        file.data[2] = value
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(DataError, match=told):
        hoarfrost.select(star, tmp_path / "out.star", box=SMALL, min_junk=0.0001, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_images_that_are_not_there_matter_only_where_they_are_read(star: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "b.mrcs").unlink()
    done = hoarfrost.select(star, tmp_path / "out.star", classes=[1])
    assert any("1 of 2 stacks were not found" in note for note in done.notes)
    with pytest.raises(DataError, match=r"row 2: expected the image file images/b\.mrcs, found none"):
        hoarfrost.select(star, tmp_path / "small.star", box=SMALL)


def test_a_bad_value_of_a_chosen_row_is_told_with_its_row_in_the_file(star: Path, tmp_path: Path) -> None:
    table = read_star(star).tables
    columns = {name: list(words) for name, words in table["particles"].columns.items()}
    columns["rlnAnglePsi"][8] = "unknown"
    write_star(star, [table["optics"], StarTable("particles", columns)])
    before = sorted(path.name for path in tmp_path.iterdir())
    for box in (None, SMALL):
        with pytest.raises(
            DataError, match="row 9: expected a number in rlnAnglePsi of data_particles, found 'unknown'"
        ):
            hoarfrost.select(star, tmp_path / "out.star", classes=[3], box=box)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert hoarfrost.select(star, tmp_path / "out.star", classes=[1]).n == 10


def test_stacks_of_several_sizes_cannot_be_shrunk_together(star: Path, tmp_path: Path) -> None:
    with mrcfile.open(tmp_path / "images" / "b.mrcs", "r+") as file:
        file.set_data(np.zeros((15, 20, 20), np.float32))
    with pytest.raises(DataError, match=r"b\.mrcs: expected images of 24 pixels as in a\.mrcs, found 20 pixels"):
        hoarfrost.select(star, tmp_path / "out.star", box=SMALL)


def test_a_stack_of_the_same_name_in_a_folder_above_is_not_taken_for_the_new_one(star: Path, tmp_path: Path) -> None:
    write_stack(tmp_path / "out.mrcs", 1, (8, 8), 1.0, [np.zeros((1, 8, 8))])
    hoarfrost.select(star, tmp_path / "run" / "out.star", box=SMALL)
    table = read_particles(tmp_path / "run" / "out.star")
    assert (table.stack_paths, table.box) == ((tmp_path / "run" / "out.mrcs",), SMALL)
    # Replaced as well as made.
    hoarfrost.select(star, tmp_path / "run" / "out.star", box=SMALL + 2, overwrite=True)
    assert read_particles(tmp_path / "run" / "out.star").box == SMALL + 2
