"""The comparison of optimisers, whole, at a size of seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import hoarfrost
from hoarfrost.cli import main
from hoarfrost.errors import DataError, UsageError
from hoarfrost.evaluation import search
from hoarfrost.io.mrc import read_volume
from hoarfrost.optim.registry import METHODS
from hoarfrost.options import made
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reporting import study_pictures
from hoarfrost.reporting.study_page import write_study_report
from hoarfrost.study.choices import choose_methods, choose_preset
from hoarfrost.study.data import particle_data
from hoarfrost.study.options import StudyOptions
from hoarfrost.study.results import summarise

N = 300
SMALL: dict[str, Any] = {"n_images": N, "epochs": 2.0, "band_limit": 0.1, "baseline_iterations": 2}
HEADINGS = 8


@pytest.fixture(scope="module", autouse=True)
def small_pictures_and_searches() -> Iterator[None]:
    """Pictures of surfaces in few pixels, and few candidates where a map is turned onto the truth."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_pictures, "render_isosurface", partial(study_pictures.render_isosurface, pixels=40))
        patch.setattr(search, "N_KEPT", 4)
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("studies") / "all"
    said: list[float] = []
    result = hoarfrost.benchmark(output, **SMALL, progress=lambda p: said.append(p.fraction_done))
    assert said == sorted(said)
    assert said[-1] == pytest.approx(1, abs=0.02)
    assert json.loads(result.results_path.read_text()) == json.loads(json.dumps(result.results))
    write_study_report(output)
    return output


@pytest.fixture(scope="module")
def results(study: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((study / "results.json").read_text())
    return found


@pytest.mark.slow
def test_every_method_ends_and_lowers_the_likelihood_of_held_out_images(results: dict[str, Any]) -> None:
    assert [t["method"] for t in results["trials"]] == [*METHODS, "auto", "projection-matching", "batch-em"]
    truth, empty = results["data"]["nll_truth"], results["data"]["nll_zero"]
    assert truth < empty
    for trial in results["trials"]:
        assert trial["failure"] is None
        first, last = trial["checkpoints"][0]["nll"], trial["checkpoints"][-1]["nll"]
        if not trial["baseline"]:
            assert last < first, trial["method"]
            assert last > truth - 1, trial["method"]


def test_image_gradients_are_counted_exactly(results: dict[str, Any]) -> None:
    for trial in results["trials"]:
        done = [c["image_gradients"] for c in trial["checkpoints"]]
        assert done[0] == 0
        if trial["baseline"]:
            assert done == [0, N, 2 * N]
        elif trial["method"] == "hf":
            assert done[-1] >= 2 * N
            assert all(d % N == 0 for d in done)
        else:
            assert done[-1] == 2 * N
            assert all(d % (200 if trial["method"] == "olbfgs" else 100) == 0 for d in done)


def test_rates_and_their_sensitivity_are_reported(results: dict[str, Any]) -> None:
    rates = {t["method"]: t["rate"] for t in results["trials"]}
    assert rates["auto"] is None
    assert rates["sgd"]["tried"] == {}
    assert set(rates["adam"]["tried"]) >= {"0.333", "1", "3"}
    assert [t["method"] for t in results["sensitivity"]] == list(METHODS)
    for test in results["sensitivity"]:
        assert set(test["nll"]) == {"0.33", "1", "3"}


def test_maps_are_where_the_results_say(study: Path, results: dict[str, Any]) -> None:
    for trial in results["trials"]:
        for found in trial["maps"]:
            volume, voxel_A = read_volume(study / found["path"])
            assert volume.shape == (results["data"]["volume_box"],) * 3
            assert voxel_A == pytest.approx(64 * 5.6 / results["data"]["volume_box"], rel=1e-5)
    summary = results["summary"]["methods"]
    assert summary["auto"]["success_rate"] == 1
    assert summary["auto"]["gradients_to_target"] is not None


def test_the_report_is_one_page_that_loads_nothing(study: Path) -> None:
    page = (study / "report.html").read_text()
    assert page.count("<h2>") == HEADINGS
    assert page.count('<img alt="') == 6
    assert page.count('<div class="plot"') == page.count('<script type="application/json"') == 5
    assert "default-src 'none'; script-src 'sha256-" in page
    assert "<script src=" not in page
    assert "<link" not in page
    for method in METHODS.values():
        assert method.title in page
    assert sorted(p.name for p in (study / "pictures").iterdir()) == [
        "baselines.png", "image-formation.png", "maps.png", "particles.png", "start.png", "truth.png",
    ]  # fmt: skip


def test_the_same_study_gives_the_same_numbers(tmp_path: Path, results: dict[str, Any]) -> None:
    again = hoarfrost.benchmark(tmp_path / "again", methods=["sgd", "auto"], sensitivity=False, **SMALL).results
    for trial in again["trials"]:
        first = next(t for t in results["trials"] if t["method"] == trial["method"])
        assert [c["nll"] for c in trial["checkpoints"]] == [c["nll"] for c in first["checkpoints"]]


def test_real_particles_without_a_truth(tmp_path: Path, example_particles: Path) -> None:
    arguments = ["--preset", "paper-real", "--data", str(example_particles), "--methods", "auto", "sgd"]
    small = ["--epochs", "0.3", "--band-limit", "0.2", "--no-sensitivity", "--seeds", "2", "-q"]
    assert main(["benchmark", *arguments, *small, "-o", str(tmp_path / "study")]) == 0
    results = json.loads((tmp_path / "study" / "results.json").read_text())
    assert results["data"]["nll_truth"] is None
    assert results["data"]["shifts"] > 1
    assert [(t["method"], t["seed"]) for t in results["trials"]] == [("auto", 0), ("sgd", 0), ("auto", 1), ("sgd", 1)]
    assert "The true map is not known" in (tmp_path / "study" / "report.html").read_text()


OPTIMISERS = """
import torch

class ToNaN(torch.optim.SGD):
    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.fill_(float("nan"))
        return loss

class Raises(torch.optim.SGD):
    def step(self, closure=None):
        raise RuntimeError("no step\\nat all")

class FailsAtOnce(torch.optim.SGD):
    def __init__(self, parameters, lr):
        raise TypeError("no such optimiser")
"""


def test_a_method_that_fails_has_no_result_and_ends_neither_the_others_nor_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_optimisers.py").write_text(OPTIMISERS)
    monkeypatch.syspath_prepend(tmp_path)
    methods = [f"broken_optimisers:{name}:lr=1e-3" for name in ("ToNaN", "Raises", "FailsAtOnce")]
    small = ["--n-images", "200", "--epochs", "1", "--band-limit", "0.1", "-q", "--threads", "1"]
    study = tmp_path / "study"
    assert main(["benchmark", "-o", str(study), *small, "--methods", "sgd", *methods]) == 4
    told = capsys.readouterr()
    after = {
        "ToNaN": "failed after 100 image gradients: the map was no longer finite",
        "Raises": "failed after 0 image gradients: RuntimeError: no step at all",
        "FailsAtOnce": "failed after 0 image gradients: TypeError: no such optimiser",
    }
    for name, failure in after.items():
        (line,) = [line for line in told.out.splitlines() if line.startswith(name)]
        assert line.split("  ")[-1].strip() == failure
    (line,) = [line for line in told.out.splitlines() if line.startswith("SGD")]
    assert "held-out NLL" in line
    assert told.err == ("hoarfrost: error: 3 of 4 methods failed and have no result: ToNaN, Raises, FailsAtOnce\n")
    results = json.loads((study / "results.json").read_text())
    assert [t["failure"] for t in results["trials"]] == [None, *after.values()]
    for name in methods:
        found = results["summary"]["methods"][name]
        assert found["final_nll"] is None
        assert found["mean_fsc"] is None
        assert found["success_rate"] == 0
    page = (study / "report.html").read_text()
    for name, failure in after.items():
        assert f"<td>{name}</td><td>{failure}</td><td>–</td>" in page
        assert f"{name}, {failure.partition(':')[0]}" in page, "the curve says so"


def test_a_study_of_which_all_fail_leaves_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_optimisers.py").write_text(OPTIMISERS)
    monkeypatch.syspath_prepend(tmp_path)
    small = ["--n-images", "200", "--epochs", "1", "--band-limit", "0.1", "-q", "--threads", "1"]
    methods = ["--methods", "failing_optimisers:ToNaN", "--seeds", "2"]
    assert main(["benchmark", "-o", str(tmp_path / "study"), *small, *methods]) == 4
    assert "ToNaN, failed after" in (tmp_path / "study" / "report.html").read_text()


def test_dark_particles_are_inverted_and_the_title_says_so(
    example_particles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = choose_preset(StudyOptions(preset="paper-real", band_limit=0.2))
    white = particle_data(preset, example_particles, None, None, "cpu")
    read = ParticleStack.read
    monkeypatch.setattr(ParticleStack, "read", lambda stack, indices: -read(stack, indices))
    dark = particle_data(preset, example_particles, None, None, "cpu")
    assert torch.equal(dark.images.data, white.images.data)
    assert torch.equal(dark.held_out.data, white.held_out.data)
    assert dark.examples.images is not None
    assert white.examples.images is not None
    assert torch.equal(dark.examples.images, white.examples.images)
    assert dark.title == white.title + ", inverted"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--methods", "sgdd"], "sgdd is no method; known are sgd, momentum"),
        (["--methods", "sgdd"], "adam, auto, projection-matching, batch-em, path.to.Class and module:Class"),
        (["--preset", "paper-real"], "needs --data"),
        (["--reference", "map.mrc"], "--reference goes with --data"),
        (["--seeds", "0"], "--seeds must be 1 or more"),
        (["--epochs", "-1"], "--epochs must be a positive number"),
        (["--band-limit", "2"], "share of Nyquist"),
        (["--n-images", "0"], "1 or more"),
        (["--baseline-iterations", "0"], "1 or more"),
        (["--threads", "0"], "at least 1"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "-o", str(tmp_path / "study"), *arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_a_folder_that_exists_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    tiny: dict[str, Any] = {"methods": ["auto"], "n_images": 100, "epochs": 1.0, "band_limit": 0.1}
    folder = tmp_path / "study"
    hoarfrost.benchmark(folder, **tiny)
    with pytest.raises(UsageError, match="--overwrite"):
        hoarfrost.benchmark(folder, **tiny)
    hoarfrost.benchmark(folder, **tiny, overwrite=True)
    before = (folder / "results.json").read_bytes()
    with pytest.raises(DataError):
        hoarfrost.benchmark(folder, preset="paper-real", particles=tmp_path / "missing.star", overwrite=True)
    assert (folder / "results.json").read_bytes() == before, "nothing is lost to a mistake"
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        hoarfrost.benchmark(folder, **tiny, overwrite=True)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        hoarfrost.benchmark(file, **tiny)


def test_choices() -> None:
    with pytest.raises(UsageError, match="no preset magic"):
        made(StudyOptions, {"preset": "magic"})
    with pytest.raises(UsageError, match="no methods"):
        choose_methods([])
    assert choose_methods(["auto", "auto"]) == ["auto"]


def trial(method: str, seed: int, nll: list[float], fsc: float, failure: str | None = None) -> dict[str, Any]:
    return {
        "method": method,
        "title": method.upper(),
        "seed": seed,
        "baseline": False,
        "failure": failure,
        "checkpoints": [{"image_gradients": 100 * i, "seconds": float(i), "nll": value} for i, value in enumerate(nll)],
        "maps": [{"image_gradients": 100, "mean_fsc": fsc}],
    }


def test_the_summary_reads_targets_and_success_off_the_trials() -> None:
    trials = [
        trial("sgd", 0, [9, 5, 4], 0.95),
        trial("auto", 0, [9, 4.05, 3], 0.99),
        trial("adam", 0, [9, 8, 7], 0.5),
        trial("sgd", 1, [9, 6, 5], 0.91),
        trial("auto", 1, [9, 6, 5.2], 0.8),
        trial("adam", 1, [9, 8], 0.5, failure="not finite"),
    ]
    summary = summarise(trials)
    assert summary["targets"] == pytest.approx({"0": 4.5, "1": 5.5})
    methods = summary["methods"]
    assert methods["sgd"]["gradients_to_target"] == 200
    assert methods["auto"]["gradients_to_target"] == 200
    assert methods["adam"]["seconds_to_target"] is None
    assert [methods[m]["success_rate"] for m in ("sgd", "auto", "adam")] == [1, 0.5, 0]
    assert methods["adam"]["failures"] == ["not finite"]
    assert methods["sgd"]["final_nll"] == 4.5
