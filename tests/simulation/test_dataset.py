from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import torch

import hoarfrost
from hoarfrost import simulate
from hoarfrost.errors import DataError, UsageError
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.star import write_star
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.simulation import particles
from hoarfrost.simulation import simulate as dataset
from hoarfrost.simulation.image_formation import ImageFormation
from hoarfrost.simulation.options import Optics
from hoarfrost.simulation.parameters import draw_ctfs, draw_poses
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import FILES

PIXEL_A = 4.0

OPTICS_STAR = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnImagePixelSize #5
7 200.0 2.0 0.07 1.5
3 300.0 2.7 0.10 1.5

data_particles

loop_
_rlnDefocusU #1
_rlnDefocusV #2
_rlnDefocusAngle #3
_rlnPhaseShift #4
_rlnOpticsGroup #5
20100 19900 12.5 0 3
15100 14900 -40 90 7
"""


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phantom") / "map.mrc"
    write_volume(path, make_phantom(24).numpy(), PIXEL_A)
    return path


def files_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_truth_poses_and_ctfs_explain_the_images(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(particles, "COEFFICIENTS_PER_CHUNK", 5000)  # several chunks
    data = simulate(phantom, tmp_path / "new" / "out", n_particles=200, snr=0.2, shift_sigma_A=6, seed=3)
    assert files_in(data.truth_path.parent) == sorted(FILES)
    assert files_in(tmp_path / "new") == ["out"]
    mrcfile.validate(data.stack_path)
    stack = ParticleStack.open(data.true_poses_path)
    assert (stack.n_images, stack.box, stack.pixel_size_A) == (200, 24, PIXEL_A)
    assert stack.poses is not None
    truth, pixel_size_A = read_volume(data.truth_path)
    assert pixel_size_A == pytest.approx(PIXEL_A)
    formation = ImageFormation(torch.from_numpy(truth), pixel_size_A)
    clean = formation.images(*stack.poses, stack.ctf)
    assert float(clean.double().var(dim=(1, 2)).mean()) == pytest.approx(0.2, rel=0.01)
    noise = stack.read(torch.arange(200)) - clean
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(1, abs=0.01)
    assert abs(float((noise * clean).sum() / clean.square().sum())) < 0.03
    # White: the same power in every Fourier coefficient, DC apart.
    power = formation.disc.pack(noise).abs().square().mean(0)
    radii = formation.disc.radii
    assert float(power[radii > 9].mean() / power[(radii > 0) & (radii <= 9)].mean()) == pytest.approx(1, abs=0.05)


def test_poses_are_told_in_one_file_only(phantom: Path, tmp_path: Path) -> None:
    data = simulate(phantom, tmp_path / "out", n_particles=20, shift_sigma_A=5)
    blind, told = read_particles(data.particles_path), read_particles(data.true_poses_path)
    assert blind.rotations is None
    assert told.rotations is not None
    assert told.shifts_A is not None
    rotations, shifts_A = draw_poses(20, 5, seed=0)
    np.testing.assert_allclose(told.rotations, rotations.numpy(), atol=1e-7)
    np.testing.assert_allclose(told.shifts_A, shifts_A.numpy(), atol=1e-6)
    assert "Angle" not in data.particles_path.read_text().replace("DefocusAngle", "")
    assert not told.warnings


def test_the_seed_says_it_all(phantom: Path, tmp_path: Path) -> None:
    def contents(seed: int, name: str) -> list[bytes]:
        simulate(phantom, tmp_path / name, n_particles=12, shift_sigma_A=3, seed=seed)
        return [(tmp_path / name / file).read_bytes() for file in FILES]

    assert contents(1, "a") == contents(1, "b")
    assert all(x != y for x, y in zip(contents(1, "c"), contents(2, "d"), strict=True))


def test_ctfs_come_from_a_star_file_with_their_optics(phantom: Path, tmp_path: Path) -> None:
    star = tmp_path / "ctf.star"
    star.write_text(OPTICS_STAR)
    data = hoarfrost.simulate(phantom, tmp_path / "out", n_particles=40, ctf_from=star)
    optics = read_particles(data.true_poses_path).optics
    of_300 = optics.voltage_kV == 300
    assert 5 < of_300.sum() < 35
    assert set(optics.optics_group) == {1, 2}
    for name, at_300, at_200 in [
        ("cs_mm", 2.7, 2.0),
        ("amplitude_contrast", 0.1, 0.07),
        ("defocus_u_A", 20100, 15100),
        ("defocus_v_A", 19900, 14900),
        ("defocus_angle_deg", 12.5, -40),
        ("phase_shift_deg", 0, 90),
    ]:
        np.testing.assert_allclose(getattr(optics, name), np.where(of_300, at_300, at_200))
    assert optics.pixel_size_A == PIXEL_A


def test_real_ctfs(phantom: Path, tmp_path: Path, shared_data: Path) -> None:
    star = shared_data / "ctf" / "dna-tetrahedron-200kV.star"
    data = simulate(phantom, tmp_path / "out", n_particles=10, ctf_from=star)
    assert set(read_particles(data.particles_path).optics.voltage_kV) == {200.0}


def test_a_smaller_box_means_larger_pixels(phantom: Path, tmp_path: Path) -> None:
    data = simulate(phantom, tmp_path / "out", n_particles=4, box=16, pixel_size_A=2.0)
    assert (data.box, data.pixel_size_A) == (16, 3.0)
    truth, pixel_size_A = read_volume(data.truth_path)
    assert truth.shape == (16, 16, 16)
    assert pixel_size_A == pytest.approx(3.0)


def test_what_is_drawn() -> None:
    ctf = draw_ctfs(2000, Optics(defocus_range_A=(12_000.0, 18_000.0)), seed=0)
    mean_A = (ctf.defocus_u_A + ctf.defocus_v_A) / 2
    assert float(mean_A.min()) >= 12_000
    assert float(mean_A.max()) <= 18_000
    assert float(mean_A.mean()) == pytest.approx(15_000, rel=0.02)
    assert float((ctf.defocus_u_A - ctf.defocus_v_A).max()) <= 500
    _, shifts_A = draw_poses(5000, 7.0, seed=0)
    assert shifts_A.std(0).tolist() == pytest.approx([7, 7], rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_particles": 0}, "number of particles"),
        ({"snr": 0.0}, "SNR"),
        ({"snr": float("nan")}, "SNR"),
        ({"box": 15}, "even"),
        ({"box": 8}, "16 pixels"),
        ({"pixel_size_A": 0.0}, "pixel size"),
        ({"shift_sigma_A": -1.0}, "deviation"),
        ({"defocus_range_A": (30_000.0, 10_000.0)}, "defocus range"),
        ({"voltage_kV": 0.0}, "voltage"),
        ({"cs_mm": -1.0}, "aberration"),
        ({"amplitude_contrast": 1.5}, "amplitude contrast"),
    ],
)
def test_nonsense_is_refused_before_any_work(
    phantom: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        simulate(phantom, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert files_in(tmp_path) == []


def test_maps_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    odd, flat = tmp_path / "odd.mrc", tmp_path / "flat.mrc"
    write_volume(odd, make_phantom(17).numpy(), PIXEL_A)
    write_volume(flat, np.ones((16, 16, 16)), PIXEL_A)
    with pytest.raises(DataError, match=r"odd\.mrc: expected an even box"):
        simulate(odd, tmp_path / "out")
    with pytest.raises(DataError, match=r"flat\.mrc: expected a map with contrast"):
        simulate(flat, tmp_path / "out")
    with pytest.raises(DataError, match=r"none\.mrc"):
        simulate(tmp_path / "none.mrc", tmp_path / "out")
    assert simulate(odd, tmp_path / "out", box=16, n_particles=2).box == 16


def test_an_existing_output_is_left_alone_unless_it_may_be_replaced(phantom: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = simulate(phantom, out, n_particles=3, seed=0)
    before = first.stack_path.read_bytes()
    with pytest.raises(UsageError, match="out exists"):
        simulate(phantom, out, n_particles=3, seed=1)
    assert first.stack_path.read_bytes() == before
    simulate(phantom, out, n_particles=3, seed=1, overwrite=True)
    assert first.stack_path.read_bytes() != before
    assert files_in(tmp_path) == ["out"]


def test_overwriting_never_takes_files_of_others(phantom: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds thesis"):
        simulate(phantom, out, n_particles=3, overwrite=True)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(UsageError, match="file is a file"):
        simulate(phantom, file, n_particles=3, overwrite=True)
    assert (out / "thesis.tex").exists()


def test_a_failure_leaves_nothing_and_keeps_what_was_there(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    data = simulate(phantom, out, n_particles=3)
    before = data.stack_path.read_bytes()

    def disk_full(*_: object) -> None:
        raise UsageError("cannot write: no space left on device")

    monkeypatch.setattr(dataset, "write_star", disk_full)
    with pytest.raises(UsageError, match="no space"):
        simulate(phantom, out, n_particles=4, overwrite=True)
    assert data.stack_path.read_bytes() == before
    assert files_in(tmp_path) == ["out"]


def test_an_output_that_cannot_be_written(phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot write"):
        simulate(phantom, tmp_path / "file" / "out", n_particles=3)


def test_a_folder_that_cannot_take_its_place(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    writing = write_star
    calls: list[int] = []

    def write_then_forbid_renames(*arguments: Any) -> None:
        writing(*arguments)
        calls.append(1)
        if len(calls) == 2:
            monkeypatch.setattr(Path, "replace", refuse)

    monkeypatch.setattr(dataset, "write_star", write_then_forbid_renames)
    with pytest.raises(UsageError, match=r"cannot write .*out: Permission denied"):
        simulate(phantom, tmp_path / "out", n_particles=3)
    assert files_in(tmp_path) == []
