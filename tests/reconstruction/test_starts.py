"""Several random starts of one run: compared on the same particles, counted, and the best one kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hoarfrost
from hoarfrost.cli import main
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.maths.seeds import named_generator
from hoarfrost.reconstruction.starts.agreement import StartsResult, agreement_A, onto
from hoarfrost.reconstruction.state.phase import LeftOut
from hoarfrost.reconstruction.state.tree import plain, restored
from hoarfrost.reconstruction.watch.events import Event
from hoarfrost.reconstruction.watch.progress import FractionDone
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import SimulatedData

BOX, PIXEL_A = 32, 8.0
LENGTH_A = BOX * PIXEL_A
OPTIONS: dict[str, Any] = {
    "max_resolution_A": LENGTH_A / 5.2,
    "shift_sigma_A": 8.0,
    "shift_extent_A": 16.0,
    "epochs": 10.0,
    "batch_size": 50,
}


def simulate(folder: Path, snr: float, n: int = 600) -> SimulatedData:
    write_volume(folder / "phantom.mrc", make_phantom(BOX, seed=2, n_blobs=4).numpy(), PIXEL_A)
    data: SimulatedData = hoarfrost.simulate(
        folder / "phantom.mrc", folder / "data", n_particles=n, snr=snr, shift_sigma_A=8.0, seed=1
    )
    return data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulate(tmp_path_factory.mktemp("particles"), snr=0.5)


@pytest.mark.slow
def test_starts_that_agree_end_the_search(data: SimulatedData, tmp_path: Path) -> None:
    events: list[Event] = []
    result = hoarfrost.reconstruct(data.particles_path, tmp_path / "run", progress=events.append, seed=0, **OPTIONS)
    starts = result.starts
    n = len(starts.gains)
    assert 2 <= n <= 4
    assert starts.n_agreeing >= 2
    assert starts.chosen == int(np.argmax(starts.gains))
    assert starts.agrees[starts.chosen]
    assert starts.resolution_A[starts.chosen] is None
    assert all(agreed_A is None or agreed_A >= result.band_limit_A for agreed_A in starts.resolution_A)
    assert {event.start for event in events} == set(range(n))
    done = [event.fraction_done for event in events]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1)
    report = hoarfrost.evaluate(result.map_path, data.truth_path)
    assert min(report.fsc[:5]) > 0.95


def test_the_first_start_is_the_same_of_any_number(data: SimulatedData, tmp_path: Path) -> None:
    options = {**OPTIONS, "epochs": 0.4, "held_out": 40}
    gains = []
    for starts in (2, 3):
        events: list[Event] = []
        output = tmp_path / str(starts)
        result = hoarfrost.reconstruct(data.particles_path, output, progress=events.append, starts=starts, **options)
        assert len(result.starts.gains) == starts
        gains.append([event.batch_nll for event in events if event.start == 0 and event.batch_nll is not None])
    assert gains[0] == gains[1]
    records = [json.loads(line) for line in (tmp_path / "2" / "events.jsonl").read_text().splitlines()]
    assert {record["start"] for record in records} == {0, 1}
    config = (tmp_path / "2" / "config.toml").read_text()
    assert "starts = 2" in config
    assert "until_two_agree = false" in config


def test_starts_on_noise_do_not_agree_and_exit_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = simulate(tmp_path, snr=1e-5, n=200)
    command = ["reconstruct", str(data.particles_path), "-o", str(tmp_path / "run"), "--quiet", "--starts", "2"]
    size = ["--max-resolution", str(OPTIONS["max_resolution_A"]), "--shift-sigma", "0", "--epochs", "3"]
    assert main([*command, *size]) == 4
    shown = capsys.readouterr()
    assert shown.err.startswith("hoarfrost: error: no two of 2 random starts agree")
    assert "1 of 2 agree" in shown.out
    assert (tmp_path / "run" / "particles.star").exists()
    assert read_volume(tmp_path / "run" / "map.mrc")[0].shape == (BOX, BOX, BOX)
    # Whoever lost the terminal and asks again is told the same.
    assert main(["resume", str(tmp_path / "run")]) == 4
    assert capsys.readouterr().err.startswith("hoarfrost: error: no two of 2 random starts agree")


def test_a_map_agrees_with_its_mirror_image_turned_and_moved() -> None:
    volume = make_phantom(24, seed=3, n_blobs=6).float()
    turned = torch.rot90(volume.flip(0), 1, (1, 2)).roll((1, -1, 0), (0, 1, 2))
    assert agreement_A(onto(volume[None], turned[None]), volume[None], 240.0) < 22
    noise = torch.randn(24, 24, 24, generator=named_generator(0, "starts test"))
    assert agreement_A(onto(volume[None], noise[None]), volume[None], 240.0) > 60


def test_results_of_starts_are_counted() -> None:
    assert StartsResult().n_agreeing == 0
    assert StartsResult((1.0, 2.0, 0.5), (30.0, None, 90.0), (True, True, False), 1).n_agreeing == 2


@pytest.mark.parametrize(("starts", "used"), [(1, 1), (4, 2), (4, 4), (2, 4)])
def test_the_share_done_rises_to_one_whatever_is_skipped(starts: int, used: int) -> None:
    fraction = FractionDone.of([5.0, 3.0, 8.0, 2.0], 2, starts)
    found = [fraction.at(0, 0, 0.0).largest]

    def tell(start: int, stage: int, *parts: float) -> None:
        nonlocal fraction
        for done in parts:
            fraction = fraction.at(start, stage, done)
            found.append(fraction.largest)

    for start in range(used):
        tell(start, 0, 0.3, 1.0)
        fraction = fraction.without(LeftOut("stages", 1), start)
    fraction = fraction.without(LeftOut("starts", used), used - 1)
    if used % 2:
        tell(used - 1, 2, 0.5, 1.0)
    else:
        fraction = fraction.without(LeftOut("up to the last", 2), used - 1)
    tell(used - 1, 3, 0.0, 0.5, 1.0)
    assert found[0] == 0
    assert found == sorted(found)
    assert found[-1] == pytest.approx(1)
    assert math.isclose(sum(fraction.costs), 1)


@pytest.mark.parametrize("is_restored", [False, True])
def test_stages_that_follow_once_more_share_what_is_left(is_restored: bool) -> None:
    fraction = FractionDone.of([5.0, 3.0, 8.0, 6.0, 2.0], 2, 1).without(LeftOut("stages", 1), 0).at(0, 2, 1.0)
    before = fraction.largest
    fraction = fraction.without(LeftOut("up to the last", 3), 0).without(LeftOut("again", 2), 0)
    if is_restored:
        fraction = restored(FractionDone, plain(fraction))
    found = []
    for stage in (2, 3, 4):
        for done in (0.0, 0.5, 1.0):
            fraction = fraction.at(0, stage, done)
            found.append(fraction.largest)
    assert found[0] == pytest.approx(before)
    assert found == sorted(found)
    assert found[2] - found[0] == pytest.approx((1 - before) * 8 / 16)
    assert found[-1] == pytest.approx(1)


def test_empty_maps_are_left_where_they_are() -> None:
    """Positive maps of dark particles come out empty."""
    empty, full = torch.zeros(1, 12, 12, 12), torch.rand(1, 12, 12, 12)
    assert torch.equal(onto(full, empty), empty)
    assert torch.equal(onto(empty, full), full)
