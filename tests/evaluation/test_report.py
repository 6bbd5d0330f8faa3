from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import hoarfrost
from hoarfrost import evaluate, simulate
from hoarfrost.errors import DataError, UsageError
from hoarfrost.evaluation.align import Alignment
from hoarfrost.evaluation.evaluate import EvaluationReport
from hoarfrost.io.atomic_model import read_atomic_model
from hoarfrost.io.mrc import write_volume
from hoarfrost.maths.fourier import soft_sphere
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import SimulatedData

PIXEL_A = 4.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    folder = tmp_path_factory.mktemp("data")
    write_volume(folder / "map.mrc", make_phantom(24).numpy(), PIXEL_A)
    return simulate(folder / "map.mrc", folder / "sim", n_particles=30, shift_sigma_A=4, seed=1)


@pytest.fixture(scope="module")
def report(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> EvaluationReport:
    other_hand = make_phantom(24).flip(0)
    path = tmp_path_factory.mktemp("other") / "map.mrc"
    write_volume(path, other_hand.numpy(), PIXEL_A)
    return evaluate(path, data.truth_path, poses=data.true_poses_path, true_poses=data.true_poses_path)


@pytest.fixture
def no_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the alignment, which takes seconds: the map is where it should be."""

    def stay(volume: torch.Tensor, reference: torch.Tensor, **_: float) -> Alignment:
        eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        return Alignment(eye, zero, mirrored=False, aligned=volume, correlation=0.5, score=1.0)

    monkeypatch.setattr("hoarfrost.evaluation.evaluate.align", stay)


def test_the_other_hand_is_as_good(report: EvaluationReport) -> None:
    assert report.mirrored
    assert report.correlation > 0.99
    assert report.resolution_05_A < 2 * PIXEL_A * 1.15
    assert report.resolution_05_A >= report.resolution_0143_A >= 2 * PIXEL_A
    assert report.aligned.shape == (24, 24, 24)
    assert len(report.fsc) == len(report.shell_resolutions_A) == 13
    assert report.shell_resolutions_A[:3] == (None, 96.0, 48.0)


def test_the_report_is_json(report: EvaluationReport) -> None:
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert told["resolution_05_A"] == report.resolution_05_A
    assert told["fsc"] == list(report.fsc)
    assert told["poses"]["n_particles"] == 30
    assert told["poses"]["fraction_within_deg"] == {"5": 1.0, "10": 1.0, "20": 1.0}
    assert told["poses"]["median_angle_deg"] < 0.01
    assert told["poses"]["median_shift_A"] < 0.01


def test_the_report_as_text(report: EvaluationReport) -> None:
    lines = report.lines()
    text = "\n".join(lines)
    assert f"{report.resolution_05_A:.1f} Å at FSC 0.5" in text
    assert "means little" in text
    assert "mirrored" in text
    assert "30 particles, median error 0.0° and 0.0 Å" in text
    assert lines[-1].split()[:3] == ["12", "8.0", "Å"]


def test_the_verb_has_its_own_signature() -> None:
    assert "mask_diameter_A" in inspect.signature(hoarfrost.evaluate).parameters


@pytest.mark.parametrize("box", [24, 25])
def test_a_map_is_judged_by_an_atomic_model_on_its_own_grid(tmp_path: Path, box: int) -> None:
    """Of an odd box the model's map has one voxel more, of the same size, about its own middle."""
    places = [(0, 0, 0), (14, 3, -5), (-8, 16, 4), (5, -12, 17), (-15, -9, -13), (20, 11, 9), (-3, 7, -19)]
    lines = [
        f"ATOM  {number:5d}  C   GLY A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00500.00           C"
        for number, (x, y, z) in enumerate(places, start=1)
    ]
    model = tmp_path / "model.pdb"
    model.write_text("\n".join([*lines, "END", ""]))
    volume = np.pad(read_atomic_model(model, 24, PIXEL_A), [(0, box - 24)] * 3)
    write_volume(tmp_path / "map.mrc", np.ascontiguousarray(volume.transpose(2, 1, 0)[::-1]), PIXEL_A)
    report = evaluate(tmp_path / "map.mrc", model)
    assert (report.box, report.pixel_size_A) == (box + box % 2, PIXEL_A)
    assert report.correlation > 0.97
    assert report.resolution_05_A < 2 * PIXEL_A * 1.2


def test_an_atomic_model_that_cannot_be_judged_by_is_refused(data: SimulatedData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        evaluate(data.truth_path, tmp_path / "missing.cif.gz")


@pytest.mark.usefixtures("no_alignment")
def test_a_mask_keeps_the_surroundings_out(tmp_path: Path) -> None:
    molecule = make_phantom(32)
    generator = torch.Generator().manual_seed(0)
    surroundings = torch.randn(32, 32, 32, generator=generator) * (1 - soft_sphere(32, 28, 2))
    write_volume(tmp_path / "truth.mrc", molecule.numpy(), PIXEL_A)
    write_volume(tmp_path / "map.mrc", (molecule + surroundings).numpy(), PIXEL_A)
    bare = evaluate(tmp_path / "map.mrc", tmp_path / "truth.mrc")
    masked = evaluate(tmp_path / "map.mrc", tmp_path / "truth.mrc", mask_diameter_A=80)
    assert bare.correlation == 0.5
    assert masked.correlation > 0.999
    assert bare.fsc[8] < 0.5
    assert min(masked.fsc[:14]) > 0.99
    assert bare.poses is None
    assert bare.to_dict()["poses"] is None
    assert not any("Poses" in line for line in bare.lines())


@pytest.mark.usefixtures("no_alignment")
def test_poses_are_judged_with_the_symmetry_that_is_given(data: SimulatedData, tmp_path: Path) -> None:
    # Every second particle half a turn about z away: as good where the map is C2.
    rows = []
    columns = data.true_poses_path.read_text().splitlines()
    rot = next(int(row.split("#")[1]) for row in columns if row.startswith("_rlnAngleRot")) - 1
    for row in columns:
        cells = row.split()
        number = next((int(cell[:6]) for cell in cells if cell[6:7] == "@"), 0)
        if number % 2:
            cells[rot] = f"{float(cells[rot]) + 180:.6f}"
        rows.append(" ".join(cells) if number else row)
    turned = data.true_poses_path.with_name("turned.star")
    turned.write_text("\n".join(rows) + "\n")
    maps, true = (data.truth_path, data.truth_path), data.true_poses_path
    without = evaluate(*maps, poses=turned, true_poses=true).poses
    judged = evaluate(*maps, poses=turned, true_poses=true, symmetry="C2").poses
    assert without is not None
    assert judged is not None
    assert without.fraction_within(10) == 0.5
    assert float(judged.angles_deg.max()) < 0.01


@pytest.mark.usefixtures("no_alignment")
def test_poses_of_other_particles_are_refused(data: SimulatedData, tmp_path: Path) -> None:
    maps = data.truth_path, data.truth_path
    with pytest.raises(UsageError, match="go together"):
        evaluate(*maps, poses=data.true_poses_path)
    with pytest.raises(UsageError, match="symmetry D7 is that of poses to judge"):
        evaluate(*maps, symmetry="d7")
    with pytest.raises(UsageError, match="symmetry must be Cn or Dn"):
        evaluate(*maps, symmetry="round")
    with pytest.raises(DataError, match=r"particles\.star: expected columns rlnAngleRot"):
        evaluate(*maps, poses=data.particles_path, true_poses=data.true_poses_path)

    rows = data.true_poses_path.read_text().splitlines()
    first = next(i for i, row in enumerate(rows) if "000001@" in row)
    fewer = data.true_poses_path.with_name("fewer.star")
    fewer.write_text("\n".join(rows[: first + 20]) + "\n")
    swapped = data.true_poses_path.with_name("swapped.star")
    rows[first], rows[first + 1] = rows[first + 1], rows[first]
    swapped.write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"expected the 30 particles of true_poses\.star, found 20"):
        evaluate(*maps, poses=fewer, true_poses=data.true_poses_path)
    with pytest.raises(DataError, match=r"row 1: expected image 1 as in true_poses\.star, found image 2"):
        evaluate(*maps, poses=swapped, true_poses=data.true_poses_path)


@pytest.mark.usefixtures("no_alignment")
def test_maps_that_cannot_be_judged_are_refused(data: SimulatedData, tmp_path: Path) -> None:
    flat, tiny = tmp_path / "flat.mrc", tmp_path / "tiny.mrc"
    write_volume(flat, np.ones((16, 16, 16)), PIXEL_A)
    write_volume(tiny, np.random.default_rng(0).random((4, 4, 4)), PIXEL_A)
    with pytest.raises(DataError, match=r"flat\.mrc: expected a map with contrast"):
        evaluate(flat, data.truth_path)
    with pytest.raises(DataError, match=r"tiny\.mrc: expected a map of 8 voxels"):
        evaluate(data.truth_path, tiny)
    with pytest.raises(UsageError, match="diameter must be positive"):
        evaluate(data.truth_path, data.truth_path, mask_diameter_A=0)
