"""Small particle files that users of other programs reported trouble with: what is right for each.

data/ holds 64 particles of a simulated 70S ribosome in 32 pixels of 11.2 Å, and particle files that name them.
"""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import hoarfrost
from hoarfrost import convert
from hoarfrost.cli import main
from hoarfrost.errors import DataError, StoppedError, UsageError
from hoarfrost.inspection.result import Inspection
from hoarfrost.io.columns import earlier
from hoarfrost.io.cs import read_cs
from hoarfrost.io.mrc import ImageStack, read_volume, write_volume
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.star import read_star, write_star
from hoarfrost.io.star_optics import particle_table
from hoarfrost.particles.stack import ParticleStack

DATA = Path(__file__).parent / "data"
N = 64
SHORT = {"epochs": 0.3, "starts": 1, "max_resolution_A": 60.0, "threads": 1}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A copy of the data, with the inverted images that two of the files name."""
    shutil.copytree(DATA, tmp_path, dirs_exist_ok=True)
    content = (DATA / "particles.mrcs").read_bytes()
    pixels = np.frombuffer(content[1024:], "<f2")
    (tmp_path / "dark.mrcs").write_bytes(content[:1024] + (-pixels).tobytes())
    mixed = np.concatenate([pixels[: len(pixels) // 2], -pixels[len(pixels) // 2 :]])
    (tmp_path / "mixed.mrcs").write_bytes(content[:1024] + mixed.tobytes())
    return tmp_path


def look(path: Path, datadir: Path | None = None) -> Inspection:
    return hoarfrost.inspect(path, datadir=datadir, forecast=False, threads=1)


def flags(found: Inspection) -> dict[str, str]:
    return {flag.name: flag.message for flag in found.flags}


def test_images_of_both_signs_are_read_as_white_ones(here: Path) -> None:
    white = ParticleStack.open(here / "particles.star").read(np.arange(N))
    for name in ("mixed.cs", "dark.cs"):
        np.testing.assert_array_equal(ParticleStack.open(here / name).read(np.arange(N)), white)
    found = look(here / "mixed.cs")
    assert found.contrast_z == look(here / "particles.star").contrast_z
    assert found.contrast_z is not None
    assert found.contrast_z > 6
    assert not {"contrast", "contrast-sign", "dark-particles"} & flags(found).keys()


def test_signs_that_are_the_wrong_way_round_are_told(here: Path) -> None:
    wrong = read_cs(here / "mixed.cs").records.copy()
    wrong["blob/sign"] *= -1
    np.save(here / "wrong.npy", wrong)
    (here / "wrong.npy").rename(here / "wrong.cs")
    found = look(here / "wrong.cs")
    assert found.contrast_z is not None
    assert found.contrast_z < -6
    assert "wrong way round" in flags(found)["contrast-sign"]


@pytest.mark.parametrize("name", ["dark.cs", "dark.star"])
def test_dark_images_are_dark_in_what_a_run_hands_on(here: Path, name: str) -> None:
    text = (here / "particles.star").read_text().replace("particles.mrcs", "dark.mrcs")
    (here / "dark.star").write_text(text)
    hoarfrost.reconstruct(here / name, here / "run", **SHORT)
    told = [json.loads(line).get("message") for line in (here / "run" / "events.jsonl").read_text().splitlines()]
    assert any("inverted" in message for message in told if message) == (name == "dark.star")
    convert([here / "run" / "particles.star"], here / "back.cs")
    assert set(read_cs(here / "back.cs").records["blob/sign"].tolist()) == {-1.0}
    white = ParticleStack.open(here / "particles.star").read(np.arange(N))
    for again in (here / "back.cs", here / "run" / "particles.star"):
        np.testing.assert_array_equal(ParticleStack.open(again).read(np.arange(N)), white)
    matches = ParticleStack.open(here / "run" / "matches.star")
    assert not matches.has_signs


def test_a_run_takes_over_no_column_of_an_earlier_refinement(here: Path) -> None:
    result = hoarfrost.reconstruct(here / "refined.star", here / "run", **SHORT)
    before = read_star(here / "refined.star").tables["particles"].columns
    after = read_star(result.particles_path).tables["particles"].columns
    assert {*earlier(before)} & {*after} == {
        *("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnRandomSubset"),
        *("rlnAngleRotPrior", "rlnAngleTiltPrior", "rlnAnglePsiPrior", "rlnOriginXPriorAngst", "rlnOriginYPriorAngst"),
    }
    for name in ("AngleRot", "AngleTilt", "AnglePsi"):
        assert after[f"rln{name}Prior"] == after[f"rln{name}"]
        assert after[f"rln{name}"] != before[f"rln{name}"]
    for axis in "XY":
        assert after[f"rlnOrigin{axis}PriorAngst"] == after[f"rlnOrigin{axis}Angst"]
    assert sorted(after["rlnRandomSubset"]) == ["1"] * 32 + ["2"] * 32
    assert after["rlnRandomSubset"] != before["rlnRandomSubset"]
    events = (here / "run" / "events.jsonl").read_text()
    assert "takes none of it over: rlnAngleRot" in events
    assert "rlnNormCorrection" in events
    convert([result.particles_path], here / "back.cs")
    records = read_cs(here / "back.cs").records
    assert [str(half + 1) for half in records["alignments3D/split"].tolist()] == list(after["rlnRandomSubset"])
    assert "alignments3D/class" not in (records.dtype.names or ())


def test_copies_of_an_image_belong_to_one_half_and_are_told(here: Path) -> None:
    assert flags(look(here / "expanded.star"))["image-twice"].startswith("64 images are named more than once")
    result = hoarfrost.reconstruct(here / "expanded.star", here / "run", **SHORT)
    assert "64 images are named more than once, the first in row 1" in (here / "run" / "events.jsonl").read_text()
    halves = read_star(result.particles_path).tables["particles"].columns["rlnRandomSubset"]
    assert list(halves[::2]) == list(halves[1::2])
    assert set(halves) == {"1", "2"}


def test_images_of_the_same_pixels_belong_to_one_half_and_are_told_whatever_their_names(here: Path) -> None:
    n_copies = 10
    content = (here / "particles.mrcs").read_bytes()
    size = (len(content) - 1024) // N
    (here / "particles.mrcs").write_bytes(content[: 1024 + n_copies * size] + content[1024 : -n_copies * size])
    assert flags(look(here / "particles.star"))["pixels-twice"].startswith(f"{n_copies} of {N} images")

    def stop_after(file: Path) -> Callable[[], bool]:
        return lambda: file.exists() and file.read_text().count("iteration") > 3

    log = here / "run" / "events.jsonl"
    with pytest.raises(StoppedError):
        hoarfrost.reconstruct(here / "particles.star", here / "run", **SHORT, stop=stop_after(log))
    told = f"{n_copies} images have the very pixels of another under another name, the first in row 11, as in row 1: "
    assert told in log.read_text()
    result = hoarfrost.resume(here / "run")
    halves = read_star(result.particles_path).tables["particles"].columns["rlnRandomSubset"]
    assert list(halves[:n_copies]) == list(halves[n_copies : 2 * n_copies])
    assert set(halves[:n_copies]) == {"1", "2"}


def test_bytes_of_imod_are_unsigned(here: Path) -> None:
    pixels = np.frombuffer((here / "imod.mrcs").read_bytes()[1024:], np.uint8).reshape(N, 32, 32)
    np.testing.assert_array_equal(ImageStack(here / "imod.mrcs").read(np.arange(N)), pixels.astype(np.float32))
    images = ParticleStack.open(here / "particles.star").read(np.arange(N)).numpy()
    assert np.corrcoef(images.ravel(), pixels.ravel())[0, 1] > 0.99
    text = (here / "particles.star").read_text().replace("particles.mrcs", "imod.mrcs")
    (here / "imod.star").write_text(text)
    found = look(here / "imod.star")
    assert found.contrast_z is not None
    assert found.contrast_z > 6
    assert "dark-particles" not in flags(found)


@pytest.mark.parametrize("name", ["rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied"])
def test_flipped_phases_are_refused_in_either_block_and_converted(here: Path, name: str) -> None:
    text = (here / "flipped.star").read_text().replace("rlnCtfDataArePhaseFlipped", name)
    (here / "a.star").write_text(text)
    for verb in (look, lambda path: hoarfrost.reconstruct(path, here / "run", **SHORT)):
        with pytest.raises(DataError, match=f"found {name} 1; extract the particles uncorrected"):
            verb(here / "a.star")
    done = convert([here / "a.star"], here / "a.cs")
    assert done.n == N
    assert any(f"corrected for their CTF ({name})" in note for note in done.notes)
    assert not (here / "run").exists()


def test_images_are_found_without_the_folders_of_their_names(here: Path) -> None:
    (here / "flat").mkdir()
    (here / "nowhere").mkdir()
    shutil.copy(here / "particles.mrcs", here / "flat" / "mic1.mrcs")
    for name in ("abs.star", "rel.star"):
        assert look(here / name, here / "flat").n_particles == N
        with pytest.raises(DataError, match=r"found none in .*nowhere: tried .*mic1\.mrcs and .*nowhere/mic1\.mrcs$"):
            look(here / name, here / "nowhere")
        with pytest.raises(UsageError, match=r"the data directory .*lost does not exist"):
            look(here / name, here / "lost")
        with pytest.raises(DataError, match=r"or the current folder; give the folder of the images: --datadir$"):
            look(here / name)


def test_images_of_a_linked_file_are_found_in_its_own_project(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    job = here / "Extract" / "job012"
    job.mkdir(parents=True)
    (here / "particles.star").rename(job / "particles.star")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "particles.star").symlink_to(job / "particles.star")
    assert look(elsewhere / "particles.star").n_particles == N


def test_compressed_maps_and_maps_without_a_voxel_size_can_be_judged(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    volume = np.zeros((16, 16, 16), np.float32)
    volume[4:12, 4:12, 5:11] = 1 + rng.random((8, 8, 6))
    write_volume(here / "map.mrc", volume, 5.0)
    (here / "map.mrc.gz").write_bytes(gzip.compress((here / "map.mrc").read_bytes()))
    untold = bytearray((here / "map.mrc").read_bytes())
    untold[40:52] = struct.pack("<3f", 0, 0, 0)
    (here / "cella0.mrc").write_bytes(untold)
    commands = [
        ["evaluate", "cella0.mrc", "--reference", "map.mrc.gz"],
        ["compare", "cella0.mrc", "map.mrc.gz"],
        ["flip", "cella0.mrc", "-o", "flipped.mrc"],
        ["symmetrise", "cella0.mrc", "C2", "-o", "c2.mrc"],
    ]
    for command in commands:
        files = [str(here / word) if "." in word else word for word in command]
        assert main(files) == 3
        assert capsys.readouterr().err.endswith("found none; give the size in Å: --pixel-size\n")
        assert main([*files, "--pixel-size", "5.0"]) == 0
    assert read_volume(here / "c2.mrc")[1] == read_volume(here / "flipped.mrc")[1] == 5.0
    assert hoarfrost.evaluate(here / "cella0.mrc", here / "map.mrc.gz", pixel_size_A=5.0).correlation > 0.98


@pytest.mark.parametrize("name", ["micrograph-datax100", "micrograph-x35", "micrograph-x36", "micrograph-x95"])
def test_names_are_read_whatever_they_begin_with(here: Path, name: str) -> None:
    begins = {"micrograph-datax100": "data_"}.get(name) or chr(int(name[-2:]))
    table = read_particles(here / f"{name}.star")
    assert table.n == N
    micrographs = table.star.tables["particles"].columns["rlnMicrographName"]
    assert micrographs[0] == f"{begins}00000.mrc"
    convert([here / f"{name}.star"], here / "a.cs")
    convert([here / "a.cs"], here / "b.star")
    assert list(read_star(here / "b.star").tables["particles"].columns["rlnMicrographName"]) == list(micrographs)


def test_an_optics_group_may_be_called_like_a_block(here: Path) -> None:
    assert look(here / "group-name.star").n_particles == N
    assert read_star(here / "group-name.star").tables["optics"].columns["rlnOpticsGroupName"] == ["data_krios4"]


def test_names_beyond_ascii_are_read_and_written(here: Path) -> None:
    star = read_star(here / "utf8.star")
    assert star.tables["particles"].columns["rlnMicrographName"][-1] == "méc00003.mrc"
    write_star(here / "again.star", star.tables.values())
    assert read_star(here / "again.star").tables == star.tables
    assert look(here / "utf8.star").n_particles == N
    assert read_star(here / "bom.star").tables == read_star(here / "particles.star").tables
    convert([here / "accented.cs"], here / "out.star")
    assert (
        read_star(here / "out.star").tables["particles"].columns["rlnImageName"][0] == "000001@importé/particles.mrcs"
    )


def test_a_folder_with_an_accent_goes_all_the_way(here: Path) -> None:
    folder = here / "données"
    folder.mkdir()
    for name in ("particles.mrcs", "posed.star"):
        (here / name).rename(folder / name)
    result = hoarfrost.reconstruct(folder / "posed.star", here / "run", **SHORT)
    assert read_particles(result.particles_path).stack_paths[0].samefile(folder / "particles.mrcs")
    done = hoarfrost.evaluate(result.map_path, result.map_path)
    assert done.correlation > 0.99
    assert (
        main(["flip", str(result.map_path), "-o", str(here / "o.mrc"), "--particles", str(result.particles_path)]) == 0
    )
    flipped = particle_table(read_star(here / "o.star")).columns
    psi = particle_table(read_star(result.particles_path)).columns["rlnAnglePsi"]
    turned = np.array([float(a) for a in flipped["rlnAnglePsi"]]) - np.array([float(a) for a in psi])
    np.testing.assert_allclose(np.abs(turned), 180, atol=1e-5)


def test_folders_that_a_star_file_cannot_name_are_refused_before_the_work(here: Path) -> None:
    folder = here / "two\nlines"
    folder.mkdir()
    for name in ("particles.mrcs", "particles.star"):
        (here / name).rename(folder / name)
    with pytest.raises(UsageError, match="could not name the images"):
        hoarfrost.reconstruct(folder / "particles.star", here / "run", **SHORT)
    assert not (here / "run").exists()
