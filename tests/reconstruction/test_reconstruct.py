"""From a stack of simulated particles to a map, end to end, on a small problem."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import math
import os
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hoarfrost
from hoarfrost.cli import main
from hoarfrost.errors import DataError, UsageError
from hoarfrost.evaluation.evaluate import EvaluationReport
from hoarfrost.io import atomic
from hoarfrost.io.fsc_star import read_fsc
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.io.noise_star import read_noise
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.star import read_star
from hoarfrost.maths.fourier import soft_sphere
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.result import RunResult
from hoarfrost.reconstruction.watch.events import Event
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import SimulatedData

BOX, PIXEL_A, N = 32, 8.0, 600
LENGTH_A = BOX * PIXEL_A
R_MAX = 5.2
# One band limit, coarse enough for a few seconds, and as many iterations as a start may need to fall into place.
QUICK: dict[str, Any] = {
    "max_resolution_A": LENGTH_A / R_MAX,
    "diameter_A": 0.85 * LENGTH_A,
    "shift_sigma_A": 8.0,
    "shift_extent_A": 16.0,
    "starts": 1,
}
WHOLE = {**QUICK, "epochs": 10.0, "batch_size": 50}
SHORT = {**QUICK, "epochs": 0.4, "batch_size": 50, "held_out": 40}
# The FSC with the truth is 1 to two digits up to shell 4 where the poses are right. The first iteration from a random
# start reads 0.65 to 0.83 there, and crosses a half beyond shell 4 as well: a blob is a good fit to few shells.
RIGHT, RIGHT_UP_TO_SHELL = 0.95, 4
RIGHT_POSES_DEG = 20.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    folder = tmp_path_factory.mktemp("particles")
    write_volume(folder / "phantom.mrc", make_phantom(BOX, seed=2, n_blobs=4).numpy(), PIXEL_A)
    return hoarfrost.simulate(
        folder / "phantom.mrc", folder / "data", n_particles=N, snr=0.5, shift_sigma_A=8.0, seed=1
    )


@dataclasses.dataclass(frozen=True)
class Run:
    result: RunResult
    events: list[Event]
    report: EvaluationReport


@pytest.fixture(scope="module")
def run_with_seed(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Run]:
    """Whole runs, each made once."""
    runs: dict[int, Run] = {}

    def run(seed: int) -> Run:
        if seed not in runs:
            events: list[Event] = []
            output = tmp_path_factory.mktemp("runs") / f"seed {seed}"
            result = hoarfrost.reconstruct(data.particles_path, output, seed=seed, progress=events.append, **WHOLE)
            report = hoarfrost.evaluate(
                result.map_path, data.truth_path, poses=result.particles_path, true_poses=data.true_poses_path
            )
            runs[seed] = Run(result, events, report)
        return runs[seed]

    return run


@pytest.fixture(scope="module")
def short_run(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run of a few iterations, for what does not depend on the map being right. Not to be changed."""
    result: RunResult = hoarfrost.reconstruct(
        data.particles_path, tmp_path_factory.mktemp("short") / "run", seed=3, **SHORT
    )
    return result


def read_events(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "events.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_random_start_becomes_the_map(run_with_seed: Callable[[int], Run], seed: int) -> None:
    run = run_with_seed(seed)
    assert min(run.report.fsc[: RIGHT_UP_TO_SHELL + 1]) > RIGHT
    assert run.report.resolution_05_A <= LENGTH_A / 5
    assert run.report.poses is not None
    assert run.report.poses.median_angle_deg < RIGHT_POSES_DEG
    assert run.report.poses.median_shift_A < 1.5 * PIXEL_A  # shifts are two pixels apart


def test_a_start_alone_would_not_pass_for_the_map(data: SimulatedData, short_run: RunResult) -> None:
    report = hoarfrost.evaluate(
        short_run.map_path, data.truth_path, poses=short_run.particles_path, true_poses=data.true_poses_path
    )
    assert report.poses is not None
    assert min(report.fsc[: RIGHT_UP_TO_SHELL + 1]) < RIGHT
    assert report.poses.median_angle_deg > 2 * RIGHT_POSES_DEG


@pytest.mark.slow
def test_the_held_out_likelihood_improves(run_with_seed: Callable[[int], Run]) -> None:
    judged = [event for event in run_with_seed(0).events if event.nll is not None]
    assert len(judged) >= 3
    first, last = judged[0], judged[-1]
    assert first.nll is not None
    assert last.nll is not None
    assert last.nll_standard_error is not None
    assert last.nll_gain is not None
    assert first.nll_gain is not None
    assert last.nll < first.nll
    assert last.nll_gain - first.nll_gain == pytest.approx(first.nll - last.nll, rel=1e-3, abs=1e-3)
    assert last.nll_gain > 0
    assert 0 < last.nll_standard_error < 10


@pytest.mark.slow
def test_the_claimed_resolution_is_never_finer_than_the_band(run_with_seed: Callable[[int], Run]) -> None:
    result = run_with_seed(0).result
    assert result.band_limit_A == pytest.approx(LENGTH_A / R_MAX, rel=1e-3)
    assert result.resolution_A >= result.band_limit_A
    assert result.seconds > 0


def test_the_maps_have_the_box_and_voxel_size_of_the_images(short_run: RunResult) -> None:
    for name in ("map.mrc", "half1.mrc", "half2.mrc", "mask.mrc"):
        volume, pixel_size_A = read_volume(short_run.output / name)
        assert volume.shape == (BOX, BOX, BOX)
        assert pixel_size_A == pytest.approx(PIXEL_A)
        assert volume.std() > 0
    assert short_run.map_path == short_run.output / "map.mrc"
    halves = [read_volume(short_run.output / f"half{n}.mrc")[0] for n in (1, 2)]
    assert not np.array_equal(*halves)


def test_the_agreement_of_the_half_maps_is_written(short_run: RunResult) -> None:
    curves = read_fsc(short_run.output / "fsc.star")
    halves = short_run.halves
    assert curves.resolution_A == pytest.approx(short_run.resolution_A, abs=1e-5)
    assert curves.band_limit_A == pytest.approx(short_run.band_limit_A, abs=1e-5)
    for name in ("unmasked", "masked", "randomised", "corrected"):
        np.testing.assert_allclose(getattr(curves, name), getattr(halves, name).numpy(), atol=1e-6)
    first, second, mask = (
        torch.from_numpy(read_volume(short_run.output / f"{name}.mrc")[0]) for name in ("half1", "half2", "mask")
    )
    in_band = slice(0, int(R_MAX) + 1)
    np.testing.assert_allclose(curves.unmasked[in_band], fourier_shell_correlation(first, second)[in_band], atol=1e-4)
    masked = fourier_shell_correlation(first, second, mask)
    np.testing.assert_allclose(curves.masked[in_band], masked[in_band], atol=1e-4)
    assert short_run.resolution_A == max(halves.unmasked_A, halves.corrected_A)


def test_the_particles_keep_their_rows_and_gain_poses(data: SimulatedData, short_run: RunResult) -> None:
    before, after = read_particles(data.particles_path), read_particles(short_run.particles_path)
    assert before.rotations is None
    assert after.n == N
    assert after.rotations is not None
    assert after.shifts_A is not None
    np.testing.assert_array_equal(after.image_index, before.image_index)
    assert after.stack_paths[0].samefile(before.stack_paths[0])
    assert np.abs(after.shifts_A).max() <= 16 + 1e-6
    rows = read_star(data.particles_path).tables["particles"].columns
    posed = read_star(short_run.particles_path).tables["particles"].columns
    for name, values in rows.items():
        if name != "rlnImageName":
            assert posed[name] == values
    probability = np.array(posed["rlnMaxValueProbDistribution"], dtype=float)
    assert (probability > 0).all()
    assert (probability <= 1 + 1e-6).all()
    evidence = np.array(posed["rlnLogLikeliContribution"], dtype=float)
    assert np.isfinite(evidence).all()
    assert evidence.std() > 0


def test_the_log_has_one_record_an_iteration(short_run: RunResult) -> None:
    records = read_events(short_run.output)
    assert all(set(record) == {field.name for field in dataclasses.fields(Event)} for record in records)
    steps = [record for record in records if record["batch_nll"] is not None]
    # 560 particles to train on, 50 at a time, 0.4 of an epoch: 5 minibatches.
    assert [record["iteration"] for record in steps] == [1, 2, 3, 4, 5]
    assert [record["image_gradients"] for record in steps] == [50, 100, 150, 200, 250]
    for record in steps:
        assert record["r_max"] == pytest.approx(R_MAX)
        assert record["resolution_A"] == pytest.approx(LENGTH_A / R_MAX)
        assert record["ess"] >= 1
        assert 0 < record["step"] <= 1
        assert math.isfinite(record["batch_nll"])
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds)
    assert steps[-1]["nll"] is not None
    assert 0 < steps[-1]["nll_gain_standard_error"] < 10
    assert records[-1]["fraction_done"] == pytest.approx(1), "the end of the run is told"


def test_the_settings_are_written_with_their_values(data: SimulatedData, short_run: RunResult) -> None:
    config = tomllib.loads((short_run.output / "config.toml").read_text(encoding="utf-8"))
    assert config["particles"] == str(data.particles_path)
    assert config["seed"] == 3
    assert config["epochs"] == 0.4
    assert config["batch_size"] == 50
    assert config["held_out"] == 40
    assert config["diameter_A"] == pytest.approx(0.85 * LENGTH_A)
    assert config["shift_extent_A"] == 16
    assert config["stages_r_max"] == pytest.approx([R_MAX])
    assert config["version"] == hoarfrost.__version__
    assert config == {
        k: list(v) if isinstance(v, tuple) else v for k, v in short_run.settings.model_dump().items() if v is not None
    }


def test_epochs_end_the_run_unconverged(short_run: RunResult) -> None:
    assert not short_run.converged


def test_nothing_but_the_runs_files_is_left_in_the_folder(short_run: RunResult) -> None:
    names = {entry.name for entry in short_run.output.iterdir()}
    maps = {"map.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "fsc.star", "reslog.star"}
    particles = {"particles.star", "matches.star", "matches.mrcs", "noise.star"}
    assert names == maps | particles | {"events.jsonl", "config.toml"}
    assert ParticleStack.open(short_run.output / "matches.star", short_run.output).n_images == 8
    assert len(read_noise(short_run.output / "noise.star").in_use) == BOX // 2


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    data: SimulatedData, short_run: RunResult, tmp_path: Path
) -> None:
    again = hoarfrost.reconstruct(data.particles_path, tmp_path / "again", seed=3, **SHORT)
    other = hoarfrost.reconstruct(data.particles_path, tmp_path / "other", seed=4, **SHORT)
    expected = short_run.map_path.read_bytes()
    assert again.map_path.read_bytes() == expected
    assert other.map_path.read_bytes() != expected
    columns = [read_star(path).tables["particles"].columns for path in (again.particles_path, short_run.particles_path)]
    columns[0].pop("rlnImageName"), columns[1].pop("rlnImageName")
    assert columns[0] == columns[1]


@pytest.fixture(scope="module")
def dark_particles(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same particles, dark on light."""
    folder = tmp_path_factory.mktemp("dark") / "data"
    shutil.copytree(data.particles_path.parent, folder)
    stack = np.fromfile(folder / data.stack_path.name, "<f4", offset=1024)
    with (folder / data.stack_path.name).open("r+b") as file:
        file.seek(1024)
        file.write((-stack).tobytes())
    return folder / data.particles_path.name


def test_dark_particles_give_the_map_of_white_ones_and_the_user_is_told(
    dark_particles: Path, short_run: RunResult, tmp_path: Path
) -> None:
    events: list[Event] = []
    dark = hoarfrost.reconstruct(dark_particles, tmp_path / "dark", seed=3, progress=events.append, **SHORT)
    for name in ("map.mrc", "half1.mrc", "half2.mrc"):
        assert (dark.output / name).read_bytes() == (short_run.output / name).read_bytes()
    told = [event.message for event in events if event.message is not None and "dark on light" in event.message]
    assert len(told) == 1
    assert "images are inverted" in told[0]
    assert told[0] in [record["message"] for record in read_events(dark.output)]
    settings = [tomllib.loads((run.output / "config.toml").read_text(encoding="utf-8")) for run in (short_run, dark)]
    assert [s["contrast"] for s in settings] == ["white", "black"]
    assert settings[0]["contrast_z"] == -settings[1]["contrast_z"] > 4
    assert not [record for record in read_events(short_run.output) if "light" in (record["message"] or "")]


def test_the_user_may_say_what_the_particles_are(dark_particles: Path, short_run: RunResult, tmp_path: Path) -> None:
    events: list[Event] = []
    run = hoarfrost.reconstruct(
        dark_particles, tmp_path / "run", seed=3, contrast="white", progress=events.append, **SHORT
    )
    assert run.settings.contrast == "white"
    assert run.settings.contrast_z == -short_run.settings.contrast_z
    assert [event.message for event in events if "as asked for, but they look dark on light" in (event.message or "")]
    assert run.map_path.read_bytes() != short_run.map_path.read_bytes()


def test_particles_whose_contrast_is_not_clear_are_taken_for_white_and_the_user_is_told(
    data: SimulatedData, tmp_path: Path
) -> None:
    noise = hoarfrost.simulate(data.truth_path, tmp_path / "noise", n_particles=80, snr=1e-6)
    events: list[Event] = []
    run = hoarfrost.reconstruct(
        noise.particles_path, tmp_path / "run", progress=events.append, **{**SHORT, "held_out": 16}
    )
    assert run.settings.contrast == "white"
    assert [event.message for event in events if "do not tell whether" in (event.message or "")]


@pytest.mark.slow
def test_masked_particles_give_a_map_and_the_user_is_told(data: SimulatedData, tmp_path: Path) -> None:
    folder = tmp_path / "masked"
    shutil.copytree(data.particles_path.parent, folder)
    with (folder / data.stack_path.name).open("r+b") as file:
        file.seek(1024)
        images = np.fromfile(file, "<f4").reshape(N, BOX, BOX)
        file.seek(1024)
        file.write((images * soft_sphere(BOX, 22, 3, dims=2).numpy()).astype("<f4").tobytes())
    events: list[Event] = []
    run = hoarfrost.reconstruct(
        folder / data.particles_path.name, tmp_path / "run", seed=0, progress=events.append, **WHOLE
    )
    told = [event.message for event in events if "has masked the images" in (event.message or "")]
    assert len(told) == 1
    assert "outside a circle of 176 Å" in told[0]
    # The noise that was added is white, and the particles' power a third of all there is.
    variance = read_noise(run.output / "noise.star").in_use
    assert 0.8 < variance.min() < variance.max() < 1.2
    report = hoarfrost.evaluate(run.map_path, data.truth_path)
    assert min(report.fsc[: RIGHT_UP_TO_SHELL + 1]) > RIGHT


def test_turning_the_grid_at_every_iteration_is_another_run(
    data: SimulatedData, short_run: RunResult, tmp_path: Path
) -> None:
    turned = hoarfrost.reconstruct(
        data.particles_path, tmp_path / "turned", seed=3, **{**SHORT, "epochs": 0.2}, rotate_grid=True
    )
    assert turned.map_path.read_bytes() != short_run.map_path.read_bytes()
    assert turned.settings.rotate_grid


def test_gradient_descent_lowers_the_held_out_likelihood(data: SimulatedData, tmp_path: Path) -> None:
    last_nll: list[float] = []
    for name, epochs in (("one step", 0.05), ("two epochs", 2.0)):
        events: list[Event] = []
        options = {**SHORT, "epochs": epochs, "method": "sgd"}
        hoarfrost.reconstruct(data.particles_path, tmp_path / name, progress=events.append, **options)
        last_nll.append([event.nll for event in events if event.nll is not None][-1])
    assert last_nll[1] < last_nll[0] - 1
    assert all(event.ess is None for event in events)
    steps = [event.step for event in events if event.step is not None]
    assert steps == sorted(steps, reverse=True)
    assert len(steps) == 24  # twelve minibatches an epoch, of 560 images


@pytest.mark.parametrize(
    ("method", "gradients_a_step"), [("momentum", 1), ("adagrad", 1), ("olbfgs", 2), ("hf", 7), ("sag", 1), ("adam", 1)]
)
def test_every_kind_of_method_reconstructs_and_counts_its_gradients(
    method: str, gradients_a_step: int, data: SimulatedData, tmp_path: Path
) -> None:
    events: list[Event] = []
    coarse = {"max_resolution_A": LENGTH_A / 3.6}  # counts do not depend on it
    options = {**SHORT, **coarse, "batch_size": None, "epochs": 1.5, "method": method}
    result = hoarfrost.reconstruct(data.particles_path, tmp_path / "run", progress=events.append, **options)
    steps = [event for event in events if event.step is not None]
    batch = {"hf": 280}.get(method, 560 // 6)
    for first, second in itertools.pairwise(steps):
        taken = second.image_gradients - first.image_gradients
        assert gradients_a_step * batch <= taken <= gradients_a_step * (batch + 1) or method == "hf"
    assert steps[-1].image_gradients >= 1.5 * 560
    assert read_volume(result.map_path)[0].any()
    searched = [event.message for event in events if event.message is not None and "step was searched" in event.message]
    assert len(searched) == (method in ("adagrad", "olbfgs", "adam"))


def test_two_band_limits_go_up_in_stages(data: SimulatedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hoarfrost.reconstruction import schedule as marching
    from hoarfrost.reconstruction.settings import plan as settings
    from hoarfrost.reconstruction.starts import starts

    monkeypatch.setattr(settings, "FIRST_R_MAX", 3.5)
    monkeypatch.setattr(starts, "LEAST_GAIN_TO_REFINE", math.inf)
    quick = marching.StagePlan((0.3,), 2, 4, 2, 2, 4)
    monkeypatch.setattr(marching, "FIRST_STAGE", quick)
    monkeypatch.setattr(marching, "LAST_STAGE", quick)
    events: list[Event] = []
    options = {**SHORT, "epochs": None, "max_resolution_A": LENGTH_A / 4.4}
    result = hoarfrost.reconstruct(data.particles_path, tmp_path / "run", progress=events.append, **options)
    assert result.converged
    assert result.settings.stages_r_max == (3.5, 4.4)
    stages = [event.stage for event in events if event.batch_nll is not None]
    assert sorted(set(stages)) == [0, 1]
    assert stages == sorted(stages)
    done = [event.fraction_done for event in events]
    assert all(0 <= share <= 1 for share in done)
    assert done[-1] == pytest.approx(1)


def test_an_existing_folder_is_refused_and_left_alone(data: SimulatedData, tmp_path: Path) -> None:
    output = tmp_path / "run"
    output.mkdir()
    (output / "map.mrc").write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists; choose another folder or give --overwrite"):
        hoarfrost.reconstruct(data.particles_path, output, **SHORT)
    assert {entry.name: entry.read_bytes() for entry in output.iterdir()} == {"map.mrc": b"precious"}


def test_overwriting_replaces_what_a_run_wrote_and_nothing_else(data: SimulatedData, tmp_path: Path) -> None:
    output = tmp_path / "run"
    output.mkdir()
    (output / "map.mrc").write_bytes(b"old")
    (output / "notes.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"holds notes\.txt, which reconstruct did not write"):
        hoarfrost.reconstruct(data.particles_path, output, overwrite=True, **SHORT)
    assert (output / "map.mrc").read_bytes() == b"old"
    (output / "notes.txt").unlink()
    hoarfrost.reconstruct(data.particles_path, output, overwrite=True, **{**SHORT, "epochs": 0.1})
    assert read_volume(output / "map.mrc")[0].shape == (BOX, BOX, BOX)


def test_a_file_in_the_folders_place_is_refused(data: SimulatedData, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("precious")
    with pytest.raises(UsageError, match="is a file; choose another folder"):
        hoarfrost.reconstruct(data.particles_path, tmp_path / "run", overwrite=True, **SHORT)
    assert (tmp_path / "run").read_text() == "precious"


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_full_disk_leaves_no_half_written_map(
    data: SimulatedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    output = tmp_path / "run"
    work = getattr(os, function)

    def full(first: Any, *others: Any) -> Any:
        # The settings are written before the work, the map after it.
        if (output / "events.jsonl").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return work(first, *others)

    monkeypatch.setattr(atomic.os, function, full)
    with pytest.raises(UsageError, match=r"cannot write .*: No space left on device"):
        hoarfrost.reconstruct(data.particles_path, output, **{**SHORT, "epochs": 0.1})
    written = {entry.name for entry in output.iterdir()} - {"checkpoints", "live"}
    assert written == {"config.toml", "events.jsonl", "noise.star"}


@pytest.fixture
def spoilt(data: SimulatedData, tmp_path: Path) -> Callable[[int, float], Path]:
    """A copy of the particles in which every pixel of one image has one value."""

    def spoil(row: int, value: float) -> Path:
        shutil.copytree(data.particles_path.parent, tmp_path / "spoilt")
        with (tmp_path / "spoilt" / data.stack_path.name).open("r+b") as file:
            file.seek(1024 + (row - 1) * BOX * BOX * 4)
            file.write(np.full(BOX * BOX, value, "<f4").tobytes())
        return tmp_path / "spoilt" / data.particles_path.name

    return spoil


@pytest.mark.parametrize(("value", "found"), [(float("nan"), "NaN or infinity"), (2.5, "one value in every pixel")])
@pytest.mark.parametrize("row", [1, 431, N])
def test_an_image_without_sense_is_named_before_any_work(
    spoilt: Callable[[int, float], Path], tmp_path: Path, value: float, found: str, row: int
) -> None:
    star, output = spoilt(row, value), tmp_path / "run"
    with pytest.raises(DataError, match=found) as refusal:
        hoarfrost.reconstruct(star, output, **SHORT)
    assert refusal.value.row == row
    assert refusal.value.path == star
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"symmetry": "Q2"}, "symmetry must be"),
        ({"held_out": 400}, "--held-out 400"),
        ({"max_resolution_A": 5.0}, "finer than"),
        ({"diameter_A": 1000.0}, "exceeds the box"),
        ({"method": "magic"}, "method must be"),
    ],
)
def test_options_that_make_no_sense_leave_no_folder(
    data: SimulatedData, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        hoarfrost.reconstruct(data.particles_path, tmp_path / "run", **{**SHORT, **options})
    assert not (tmp_path / "run").exists()


def test_the_command_line_goes_from_a_map_to_a_judged_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, particles, output = tmp_path / "phantom.mrc", tmp_path / "data", tmp_path / "run"
    write_volume(truth, make_phantom(24).numpy(), 10.0)
    assert main(["simulate", str(truth), "-n", "60", "-o", str(particles), "--snr", "0.5", "--seed", "2"]) == 0
    reconstruct = ["reconstruct", str(particles / "particles.star"), "-o", str(output), "--shift-sigma", "0"]
    assert main([*reconstruct, "--max-resolution", "60", "--epochs", "3", "--starts", "1", "--quiet"]) == 4
    printed = capsys.readouterr()
    assert str(output / "map.mrc") in printed.out
    assert "still improving" in printed.out
    told = "--epochs 3 ended the run before its work was done"
    assert printed.err == (
        f"hoarfrost: error: {told}, so the map may be coarse, or wrong; run it again with more --epochs, or with none\n"
    )
    # A page that is made of the folder alone, and whoever asks again, are told the same.
    (output / "report.html").unlink()
    assert main(["report", str(output)]) == 0
    assert f"{told}, so the map may be coarse" in (output / "report.html").read_text()
    capsys.readouterr()
    assert main(["resume", str(output)]) == 4
    assert capsys.readouterr() == ("", printed.err)
    evaluate = ["evaluate", str(output / "map.mrc"), "--reference", str(particles / "truth.mrc")]
    poses = ["--poses", str(output / "particles.star"), "--true-poses", str(particles / "true_poses.star")]
    assert main([*evaluate, *poses, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["box"] == 24
    assert report["poses"]["n_particles"] == 60
    assert len(report["fsc"]) == 13


def test_the_command_line_tells_mistakes_in_one_line(
    data: SimulatedData,
    spoilt: Callable[[int, float], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "old run").mkdir()
    (tmp_path / "old run" / "map.mrc").touch()
    good, bad = str(data.particles_path), str(spoilt(7, float("nan")))
    new, old = str(tmp_path / "run"), str(tmp_path / "old run")
    cases = [
        (["reconstruct", good, "-o", old], 2, "old run exists"),
        (["reconstruct", good, "-o", new, "--symmetry", "D7h"], 2, "T, O or I (like C4, D7), found 'D7h'"),
        (["reconstruct", good, "-o", new, "--contrast", "grey"], 2, "--contrast"),
        (["reconstruct", good, "-o", new, "--held-out", "500"], 2, "--held-out 500"),
        (["reconstruct", bad, "-o", new], 3, "row 7: expected finite pixel values"),
        (["reconstruct", str(tmp_path / "none.star"), "-o", new], 3, "none.star"),
        (["evaluate", str(data.truth_path), "--reference", good], 3, "particles.star"),
        (["simulate", good, "-n", "5", "-o", new], 3, "particles.star"),
        (["simulate", str(data.truth_path), "-n", "0", "-o", new], 2, "number of particles"),
    ]
    for arguments, exit_code, words in cases:
        assert main(arguments) == exit_code, arguments
        captured = capsys.readouterr()
        assert captured.err.startswith("hoarfrost: error: ")
        assert captured.err.count("\n") == 1
        assert words in captured.err
        assert "Traceback" not in captured.err + captured.out
    assert not Path(new).exists()
