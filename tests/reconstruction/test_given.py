"""Refinement from poses or a map that are given: hoarfrost refine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import hoarfrost
from hoarfrost.cli import main
from hoarfrost.errors import DataError, StoppedError, UsageError
from hoarfrost.evaluation.align import resample
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.posed_star import write_posed_particles
from hoarfrost.maths.fourier import centred_window, fourier_resize
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.rotations import rotations_from_vectors
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import box_of
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.result import RunResult
from hoarfrost.reconstruction.run import open_source
from hoarfrost.reconstruction.settings.initial import Initial
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.settings.plan import resolve
from hoarfrost.reconstruction.starts.given import given_volume, scale_of
from hoarfrost.simulation.simulate import SimulatedData

BOX, PIXEL_A, N = 40, 8.0, 500
LENGTH_A = BOX * PIXEL_A
OFF_DEG, OFF_A = 4.0, 6.0
# A molecule of 24 blobs holds detail to shell 13.
OPTIONS: dict[str, Any] = {"max_resolution_A": LENGTH_A / 14, "shift_sigma_A": 8.0, "shift_extent_A": 24.0}
# One band limit beyond that of the first map, for what does not depend on the map being fine.
QUICK: dict[str, Any] = {**OPTIONS, "max_resolution_A": LENGTH_A / 10.5}


@pytest.fixture(scope="module")
def data(detailed: SimulatedData) -> SimulatedData:
    return detailed


def posed(data: SimulatedData, name: str, off_deg: float, off_A: float, **columns: Any) -> Path:
    """The particles with their true poses, each turned and moved at random by as much in the root mean square."""
    table = read_particles(data.true_poses_path)
    assert table.rotations is not None
    assert table.shifts_A is not None
    generator = named_generator(5, name)
    turns = torch.randn(table.n, 3, generator=generator, dtype=torch.float64) * math.radians(off_deg) / math.sqrt(3)
    moves = torch.randn(table.n, 2, generator=generator, dtype=torch.float64) * off_A / math.sqrt(2)
    rotations = torch.from_numpy(table.rotations) @ rotations_from_vectors(turns)
    path = data.particles_path.parent / f"{name}.star"
    write_posed_particles(path, table, rotations.numpy(), table.shifts_A + moves.numpy(), columns)
    return path


@pytest.fixture(scope="module")
def rough(data: SimulatedData) -> Path:
    """Particles whose poses are a little off, with halves of another program."""
    return posed(data, "rough", OFF_DEG, OFF_A, rlnRandomSubset=np.arange(N) // 3 % 2 + 1)


@pytest.fixture(scope="module")
def refined(rough: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    result: RunResult = hoarfrost.refine(rough, tmp_path_factory.mktemp("runs") / "run", **OPTIONS)
    return result


def fsc_with_truth(result: RunResult, data: SimulatedData) -> Tensor:
    """That of the maps as they lie: nothing is aligned."""
    maps = (torch.from_numpy(read_volume(path)[0]).double() for path in (result.map_path, data.truth_path))
    return fourier_shell_correlation(*maps)


def off_deg(path: Path, data: SimulatedData) -> float:
    """How far the poses of a file are from the truth in the median, in the same frame."""
    found, true = read_particles(path).rotations, read_particles(data.true_poses_path).rotations
    trace = np.einsum("nij,nij->n", found, true)
    return float(np.median(np.degrees(np.arccos(((trace - 1) / 2).clip(-1, 1)))))


def test_poses_a_little_off_become_the_right_ones_in_the_frame_they_were_in(
    data: SimulatedData, rough: Path, refined: RunResult
) -> None:
    assert off_deg(rough, data) > 0.8 * OFF_DEG
    assert off_deg(refined.particles_path, data) < 1.6
    assert float(fsc_with_truth(refined, data)[1:13].min()) > 0.8
    assert refined.independent_halves
    assert not refined.doubts


def test_halves_stay_those_of_the_file(rough: Path, refined: RunResult) -> None:
    given, found = (read_particles(path).halves for path in (rough, refined.particles_path))
    assert given is not None
    assert found is not None
    assert np.array_equal(given, found)


def test_a_map_of_another_grid_and_scale_will_do_without_poses(data: SimulatedData, tmp_path: Path) -> None:
    truth = torch.from_numpy(read_volume(data.truth_path)[0])
    larger = resample(truth, torch.eye(3).double(), torch.zeros(3).double(), mirrored=False, box=54, scale=40 / 54)
    write_volume(tmp_path / "other.mrc", 300 * larger.numpy(), PIXEL_A)
    result = hoarfrost.refine(data.particles_path, tmp_path / "run", initial_map=tmp_path / "other.mrc", **OPTIONS)
    assert float(fsc_with_truth(result, data)[1:13].min()) > 0.8
    assert off_deg(result.particles_path, data) < 1.6


def env_of(path: Path, **options: Any) -> Env:
    stack = ParticleStack.open(path)
    settings = resolve(stack, Options(**OPTIONS), output=Path("run"), initial=Initial("map", "a map", **options))
    return Env(settings.model_copy(update={"contrast": "white"}), open_source(stack, settings))


def test_a_given_map_comes_to_the_length_of_the_images_with_nothing_moved(data: SimulatedData, tmp_path: Path) -> None:
    env, box, r_max = env_of(data.particles_path), box_of(9.0), 9.0
    truth = torch.from_numpy(read_volume(data.truth_path)[0]).double()
    expected = fourier_resize(centred_window(truth, env.settings.box), box, r_max)
    for side, pixel_A in ((40, 8.0), (64, 6.0), (50, 8.0)):
        scale = BOX * PIXEL_A / (side * pixel_A)
        turn, shift = torch.eye(3).double(), torch.zeros(3).double()
        given = resample(truth, turn, shift, mirrored=False, box=side, scale=scale)
        write_volume(tmp_path / f"{side}.mrc", given.numpy(), pixel_A)
        found = given_volume(env, str(tmp_path / f"{side}.mrc"), box, r_max).double()
        # The scale is another matter.
        assert float((found / found.norm() - expected / expected.norm()).norm()) < 0.03


def test_the_scale_of_a_map_is_that_of_what_particles_add_up_to(data: SimulatedData, refined: RunResult) -> None:
    env = env_of(data.particles_path)
    band = env.search_band(9.0, "C1", 0)

    def coarse(path: Path) -> Tensor:
        volume = torch.from_numpy(read_volume(path)[0])
        return fourier_resize(centred_window(volume, env.settings.box), band.box, band.r_max) * band.support(0.8)

    truth, found = coarse(data.truth_path), coarse(refined.map_path)
    expected = float((found * truth).sum() / truth.square().sum())
    for factor in (1e-3, 1.0, 50.0):
        assert factor * scale_of(env, band, factor * truth) == pytest.approx(expected, rel=0.15)


def test_offsets_and_detail_follow_from_what_is_given(data: SimulatedData) -> None:
    far = posed(data, "far", 0.0, 30.0)
    stack = ParticleStack.open(far)
    assert stack.poses is not None
    largest_A = float(stack.poses[1].norm(dim=1).max())
    usual = resolve(stack, Options(), output=Path("run"))
    given = resolve(stack, Options(), output=Path("run"), initial=Initial("poses", None, "near", 25.0))
    assert usual.shift_extent_A < largest_A <= given.shift_extent_A <= LENGTH_A / 4
    assert given.shift_sigma_A > usual.shift_sigma_A
    assert given.initial_r_max == pytest.approx(given.box * given.pixel_size_A / 25.0, abs=1e-3)
    coarse = resolve(stack, Options(), output=Path("run"), initial=Initial("poses", None, "near"))
    assert given.stages_r_max == coarse.stages_r_max == usual.stages_r_max[: len(coarse.stages_r_max)]
    assert usual.initial_r_max is None
    assert coarse.initial_r_max == coarse.stages_r_max[-1]


def after(n: int) -> Callable[[], bool]:
    counter = itertools.count(1)
    return lambda: next(counter) >= n


def test_a_run_that_stops_while_its_first_map_is_made_ends_with_the_same_bytes(
    data: SimulatedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hoarfrost.reconstruction.starts.given.PORTION", 40)
    star = posed(data, "stopping", OFF_DEG, OFF_A)
    options = {**QUICK, "epochs": 0.5}
    hoarfrost.refine(star, tmp_path / "whole", **options)
    with pytest.raises(StoppedError):
        hoarfrost.refine(star, tmp_path / "run", stop=after(12), **options)
    for _ in range(50):
        try:
            hoarfrost.resume(tmp_path / "run", stop=after(12))
            break
        except StoppedError:
            pass
    for name in ("map.mrc", "half1.mrc", "half2.mrc", "particles.star"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_what_cannot_be_begun_with_is_told_in_one_line(
    data: SimulatedData, rough: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = posed(data, "bad", 0.0, 0.0, rlnRandomSubset=np.where(np.arange(N) == 6, 3, np.arange(N) % 2 + 1))
    run = tmp_path / "run"
    with pytest.raises(UsageError, match="has no poses to begin at; give a map with --map"):
        hoarfrost.refine(data.particles_path, run)
    with pytest.raises(UsageError, match="has no poses to begin at"):
        hoarfrost.refine(data.particles_path, run, initial_map=data.truth_path, search="near")
    with pytest.raises(DataError, match=r"none\.mrc"):
        hoarfrost.refine(rough, run, initial_map=tmp_path / "none.mrc")
    with pytest.raises(DataError, match=r"bad\.star.*7: expected 1 or 2 in rlnRandomSubset, found 3"):
        hoarfrost.refine(bad, run)
    with pytest.raises(UsageError, match=r"--initial-resolution must lie between .* found 2"):
        hoarfrost.refine(rough, run, initial_resolution_A=2.0, **OPTIONS)
    with pytest.raises(UsageError, match="--symmetry auto is for reconstruct"):
        hoarfrost.refine(rough, run, symmetry="auto")
    assert main(["refine", str(data.particles_path), "-o", str(run)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not run.exists()


def test_a_map_without_the_symmetry_that_is_named_is_told(data: SimulatedData, rough: Path, tmp_path: Path) -> None:
    events: list[Any] = []
    options = {**QUICK, "epochs": 0.2, "symmetry": "C4", "progress": events.append}
    result = hoarfrost.refine(rough, tmp_path / "run", initial_map=data.truth_path, **options)
    assert any("about the axes of C4, the given map correlates by" in (event.message or "") for event in events)
    assert any("may not have that symmetry" in doubt for doubt in result.doubts)
