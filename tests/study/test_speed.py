"""What `hoarfrost bench` reports, at a tiny size: fields and counts, never times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hoarfrost.cli import main
from hoarfrost.errors import UsageError
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.study import speed

TINY = speed.Size(
    image_box=16,
    r_max=2.3,
    n_images=1000,
    shifts=PosePrior(2.0, 3.2),
    batch=6,
    batch_with_shifts=3,
    large_batch=9,
    repeats=2,
)


@pytest.fixture(autouse=True)
def small_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SGEMM", (64, 32, 64))


def test_arithmetic_is_that_of_the_products() -> None:
    # Two products of rows and one of CTFs, a multiplication and an addition each, forth and back.
    n, shifts, base, size = 3, 5, 7, 11
    products = 2 * (n * 4 * shifts) * base * size + (n * 4) * base * size
    assert speed.useful_flop(n, shifts, base, size) == 2 * 2 * products


def test_the_published_size_is_counted_in_full() -> None:
    assert speed.useful_flop(100, 1, 12_359, 167) == pytest.approx(9.9e9, rel=1e-2)


def test_results_have_their_fields_and_their_counts() -> None:
    results = speed.measure(TINY, device="cpu")
    assert json.loads(json.dumps(results)) == results
    assert set(results["machine"]) == {"processor", "cores", "threads", "torch", "device", "system"}
    assert results["machine"]["torch"] == torch.__version__
    assert results["peak_memory_MB"] > 10
    size = results["size"]
    assert size["n_orientations"] == 8 * size["n_base"]
    entries = {entry["name"]: entry for entry in results["measurements"]}
    assert len(entries) == len(results["measurements"]) == 1 + 8 + 3 + 4
    assert all(entry["seconds"] > 0 for entry in entries.values())
    for n, n_shifts in ((6, 1), (3, size["n_shifts"])):
        flop = speed.useful_flop(n, n_shifts, size["n_base"], size["n_coefficients"])
        plural = "s" * (n_shifts > 1)
        for kind in ("flat", "sharp"):
            both = entries[f"likelihood and gradient, {n} images, {n_shifts} shift{plural}, {kind}"]
            assert both["useful_flop"] == flop
            assert both["gflops"] == pytest.approx(flop / both["seconds"] / 1e9)
            alone = entries[f"likelihood, {n} images, {n_shifts} shift{plural}, {kind}"]
            assert alone["useful_flop"] == flop // 2
    assert size["n_shifts"] > 1


def test_flat_posteriors_are_flat_and_sharp_ones_sharp() -> None:
    bench = speed.Bench(TINY, torch.device("cpu"))
    n_nodes = bench.band.poses.orientations.n_nodes
    found = {
        sharp: speed.marginalise(bench.images(20, 1, sharp=sharp), bench.slices, bench.band.poses).ess.median()
        for sharp in (False, True)
    }
    assert float(found[False]) > 0.5 * n_nodes
    assert float(found[True]) < 0.5 * float(found[False])


def test_an_epoch_is_extrapolated_from_minibatches(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = speed.Bench(TINY, torch.device("cpu"))
    monkeypatch.setattr(bench, "time", lambda name, _function: speed.Entry(name, 0.5))
    assert [entry.seconds for entry in speed.epochs(bench)] == pytest.approx([0.5 * 1000 / 6, 0.5 * 1000 / 9] * 2)


def test_bad_options_are_refused() -> None:
    with pytest.raises(UsageError, match="threads must be at least 1, found 0"):
        speed.measure(TINY, threads=0)


def test_the_command_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed, "PUBLISHED", TINY)
    assert main(["bench", "-o", str(tmp_path / "speed.json"), "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "speed.json").read_text())
    out = capsys.readouterr().out
    assert results["machine"]["processor"].split()[0] in out
    assert "Peak memory" in out
    assert "adjoint and kernel" in out
