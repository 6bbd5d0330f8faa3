"""Each command hands its options to its verb under the verb's own names, and says what came of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hoarfrost.cli import main, summary
from hoarfrost.evaluation.options import EvaluateOptions
from hoarfrost.io.guinier_star import GuinierCurves, write_guinier
from hoarfrost.io.mrc import write_volume
from hoarfrost.io.reslog_star import write_reslog
from hoarfrost.reconstruction.result import RunResult
from hoarfrost.reconstruction.starts.agreement import StartsResult
from hoarfrost.reporting import report as run_report
from hoarfrost.reporting import run_pictures

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, Any], Calls]:
    """Put a function that records its calls and returns `result` in the place of a verb."""

    def put(verb: str, home: str, result: Any) -> Calls:
        calls: Calls = []

        def fake(*args: Any, **kwargs: Any) -> Any:
            calls.append((args, kwargs))
            return result

        module = ModuleType(f"hoarfrost.{home}")
        setattr(module, verb, fake)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return calls

    return put


CLASS = SimpleNamespace(
    map_path=Path("run/map.mrc"),
    sharpened_path=Path("run/map_sharpened.mrc"),
    folder=Path("run"),
    halves=SimpleNamespace(
        resolution_A=38.24,
        band_limit_A=35.8,
        unmasked_A=38.24,
        corrected_A=36.9,
        is_from_unmasked=True,
        is_reached=True,
    ),
    share=1.0,
)
RESULT = SimpleNamespace(
    output=Path("run"),
    classes=(CLASS,),
    particles_path=Path("run/particles.star"),
    settings=SimpleNamespace(symmetry="C1", epochs=None, initial="random"),
    optics=None,
    independent_halves=False,
    converged=True,
    doubts=(),
    judged=None,
    starts=StartsResult((31.0, 29.5), (None, 48.0), (True, True), 0),
    seconds=154.4,
)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders whose pictures and pages were asked for, none of which is drawn; the run's views are even."""
    asked: list[Path] = []
    monkeypatch.setattr(run_pictures, "draw_pictures", lambda folder: asked.append(folder / "pictures"))
    monkeypatch.setattr(run_report, "report", lambda folder: asked.append(folder / "report.html"))
    monkeypatch.setattr(summary, "has_views", lambda folder: True)
    monkeypatch.setattr(summary, "read_views", lambda folder: SimpleNamespace(summary=lambda: "even"))
    return asked


def test_reconstruct_leaves_every_choice_to_the_verb(
    replace: Callable[..., Calls], drawn: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    calls = replace("reconstruct", "reconstruction.run", RESULT)

    assert main(["reconstruct", "particles.star", "-o", "run"]) == 0

    [((particles, output, options), _)] = calls
    assert (particles, output) == (Path("particles.star"), Path("run"))
    assert callable(options.progress)
    assert options.stop() is False
    assert options.model_dump(exclude={"progress", "stop"}, exclude_none=True) == {
        "seed": 0,
        "classes": 1,
        "symmetry": "C1",
        "method": "auto",
        "device": "auto",
        "rotate_grid": False,
        "refine_optics": True,
    } | {
        "contrast": "auto",
        "overwrite": False,
        "checkpoint_every_s": 60.0,
    }
    assert drawn == [Path("run/pictures"), Path("run/report.html")]
    out = capsys.readouterr().out
    assert "run/map.mrc" in out
    assert "run/report.html" in out
    assert "38.2 Å (FSC 0.143, without mask, of half maps with common poses" in out
    assert "38.2 Å without mask, 36.9 Å in it" in out
    assert "Views:      even" in out
    assert "2 of 2 agree, to 48 Å" in out
    assert "2 min 34 s" in out
    assert "chimerax run/view.cxc" in out
    assert "still improving" not in out


def test_a_sharpened_map_is_told_with_its_b_factor(tmp_path: Path) -> None:
    none = np.zeros(0)
    path = tmp_path / "map_sharpened.mrc"
    path.touch()
    write_guinier(tmp_path / "guinier.star", GuinierCurves(none, none, none, intercept=1.0, b_factor_A2=91.6))
    of_class = SimpleNamespace(**vars(CLASS) | {"folder": tmp_path, "sharpened_path": path})
    views = SimpleNamespace(summary=lambda: "even")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "has_views", lambda folder: True)
        patch.setattr(summary, "read_views", lambda folder: views)
        lines = list(summary.summary(RunResult(**vars(RESULT) | {"classes": (of_class,)})))
    assert f"Sharpened:  {path}, B-factor -92 Å²" in lines


def test_local_resolution_and_what_more_particles_would_give_are_told(tmp_path: Path) -> None:
    numbers = np.array([500.0, 1000.0, 1500.0, 2000.0])
    write_reslog(tmp_path / "reslog.star", numbers, (0.01 + 0.005 * np.log(numbers / 500)) ** -0.5, 4.0)
    write_volume(tmp_path / "mask.mrc", np.ones((8, 8, 8)), 2.0)
    write_volume(tmp_path / "local_resolution.mrc", np.linspace(6, 8, 512).reshape(8, 8, 8), 2.0)
    of_class = SimpleNamespace(**vars(CLASS) | {"folder": tmp_path})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "has_views", lambda folder: False)
        lines = list(summary.summary(RunResult(**vars(RESULT) | {"classes": (of_class,)})))
    assert "Locally:    6.2 Å in the finest tenth of the particle, 7.8 Å in the coarsest" in lines
    twice_A = (0.01 + 0.005 * np.log(8)) ** -0.5
    assert f"More:       twice as many particles like these would come to about {twice_A:.1f} Å" in lines


@pytest.mark.usefixtures("drawn")
def test_a_resolution_that_is_none_is_not_told_as_one(
    replace: Callable[..., Calls], capsys: pytest.CaptureFixture[str]
) -> None:
    halves = {**vars(CLASS.halves), "is_reached": False, "resolution_A": 35.8, "unmasked_A": 35.8, "corrected_A": 35.8}
    of_class = SimpleNamespace(**{**vars(CLASS), "halves": SimpleNamespace(**halves)})
    replace("reconstruct", "reconstruction.run", SimpleNamespace(**{**vars(RESULT), "classes": (of_class,)}))
    assert main(["reconstruct", "particles.star", "-o", "run"]) == 0
    out = capsys.readouterr().out
    assert "Resolution: not reached; the images were used to 35.8 Å" in out
    assert "FSC 0.143, " not in out


@pytest.mark.usefixtures("drawn")
def test_what_speaks_against_a_map_is_told_and_exits_4(
    replace: Callable[..., Calls], capsys: pytest.CaptureFixture[str]
) -> None:
    lonely = StartsResult((3.0, 1.0, 2.0), (None, 90.0, 80.0), (True, False, False), 0)
    doubtful = {"starts": lonely, "doubts": ("this speaks against it", "that does")}
    replace("reconstruct", "reconstruction.run", SimpleNamespace(**{**vars(RESULT), **doubtful}))
    assert main(["reconstruct", "particles.star", "-o", "run"]) == 4
    shown = capsys.readouterr()
    assert "1 of 3 agree" in shown.out
    assert "run/map.mrc" in shown.out
    assert shown.err == "hoarfrost: error: this speaks against it; also, that does\n"
    replace("reconstruct", "reconstruction.run", SimpleNamespace(**{**vars(RESULT), "starts": StartsResult()}))
    assert main(["reconstruct", "particles.star", "-o", "run"]) == 0
    assert "agree" not in capsys.readouterr().out


@pytest.mark.usefixtures("drawn")
def test_reconstruct_hands_over_every_option(replace: Callable[..., Calls], capsys: pytest.CaptureFixture[str]) -> None:
    calls = replace("reconstruct", "reconstruction.run", RESULT)
    options = (
        "--seed 3 --starts 2 --max-resolution 20 --diameter 180 --symmetry D2 --method sgd --epochs 2.5 "
        "--batch-size 50 --shift-sigma 5 --shift-extent 15 --device cpu --threads 2 --held-out 80 --datadir data "
        "--rotate-grid --no-refine-optics --memory 3GB --contrast black --overwrite --checkpoint-every 5 --quiet"
    )

    assert main(["reconstruct", "particles.star", "--output", "run", *options.split()]) == 0

    [((_, _, asked), _)] = calls
    assert asked.model_dump(exclude={"progress", "stop"}) == {
        "checkpoint_every_s": 5.0,
        "seed": 3,
        "classes": 1,
        "starts": 2,
        "max_resolution_A": 20.0,
        "diameter_A": 180.0,
        "symmetry": "D2",
        "method": "sgd",
        "epochs": 2.5,
        "batch_size": 50,
        "shift_sigma_A": 5.0,
        "shift_extent_A": 15.0,
        "device": "cpu",
        "threads": 2,
        "held_out": 80,
        "datadir": Path("data"),
        "rotate_grid": True,
        "refine_optics": False,
        "memory": "3GB",
        "contrast": "black",
        "overwrite": True,
    }
    # Epochs that did not end the run say nothing against it.
    assert "still improving" not in capsys.readouterr().out


@pytest.mark.usefixtures("drawn")
def test_a_run_that_its_epochs_ended_says_so(replace: Callable[..., Calls], capsys: pytest.CaptureFixture[str]) -> None:
    replace("reconstruct", "reconstruction.run", SimpleNamespace(**{**vars(RESULT), "converged": False}))
    assert main(["reconstruct", "particles.star", "-o", "run", "--epochs", "2.5"]) == 0
    assert "still improving when --epochs ended it" in capsys.readouterr().out


def test_simulate_hands_over_every_option(replace: Callable[..., Calls], capsys: pytest.CaptureFixture[str]) -> None:
    calls = replace("simulate", "simulation.simulate", None)
    options = (
        "--snr 0.1 --box 64 --pixel-size 4.5 --ctf-from ctf.star --defocus-range 5000 20000 --voltage 200 --cs 2 "
        "--amplitude-contrast 0.07 --shift-sigma 6 --seed 4 --overwrite --shares 0.3 0.7 --noise-from noise.star "
        "--scale-sigma 0.2 --preferred 1.5 --junk 0.1"
    )

    assert main(["simulate", "map.mrc", "model.pdb", "-n", "500", "-o", "out", *options.split()]) == 0

    [((structures, output, asked), _)] = calls
    assert (structures, output) == ([Path("map.mrc"), Path("model.pdb")], Path("out"))
    assert asked.model_dump() == {
        "n_particles": 500,
        "snr": 0.1,
        "box": 64,
        "pixel_size_A": 4.5,
        "ctf_from": Path("ctf.star"),
        "defocus_range_A": (5000.0, 20000.0),
        "voltage_kV": 200.0,
        "cs_mm": 2.0,
        "amplitude_contrast": 0.07,
        "shift_sigma_A": 6.0,
        "shares": [0.3, 0.7],
        "noise_from": Path("noise.star"),
        "scale_sigma": 0.2,
        "preferred": 1.5,
        "junk": 0.1,
        "seed": 4,
        "overwrite": True,
    }
    assert "500 particles to out" in capsys.readouterr().out


def test_select_hands_over_every_option(replace: Callable[..., Calls], capsys: pytest.CaptureFixture[str]) -> None:
    done = SimpleNamespace(
        lines=lambda: ["10 particles in a.star", "class 1: met by 4, 4 left"],
        notes=("A note",),
        n=4,
        files=(Path("b.star"), Path("b.mrcs")),
    )
    calls = replace("select", "selection.select", done)
    options = (
        "--min-junk 0.1 --max-junk 0.5 --class 1 3 --min-pose-probability 0.2 --max-pose-probability 0.9 "
        "--min-log-evidence -5 --max-log-evidence 50 --min-defocus 8000 --max-defocus 30000 --micrograph *_01 *_02 "
        "--view -20 70 --within 30 --random 1000 --seed 4 --invert-choice --box 64 --float16 --datadir data --overwrite"
    )

    assert main(["select", "a.star", "-o", "b.star", *options.split()]) == 0

    [((particles, output, asked), _)] = calls
    assert (particles, output) == (Path("a.star"), Path("b.star"))
    assert asked.model_dump() == {
        "min_junk": 0.1,
        "max_junk": 0.5,
        "classes": [1, 3],
        "min_pose_probability": 0.2,
        "max_pose_probability": 0.9,
        "min_log_evidence": -5.0,
        "max_log_evidence": 50.0,
        "min_defocus_A": 8000.0,
        "max_defocus_A": 30000.0,
        "micrographs": ["*_01", "*_02"],
        "view_deg": (-20.0, 70.0),
        "within_deg": 30.0,
        "n_random": 1000,
        "seed": 4,
        "invert_choice": True,
        "box": 64,
        "float16": True,
        "datadir": Path("data"),
        "overwrite": True,
    }
    told = ["10 particles in a.star", "class 1: met by 4, 4 left", "A note", "Wrote 4 particles to b.star and b.mrcs"]
    assert capsys.readouterr().out.splitlines() == told


def test_example_says_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    calls: Calls = []

    def write(output: Path, options: Any) -> Path:
        calls.append(((output, options), {}))
        return output / "particles.star"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hoarfrost.examples.example.example", write)
        assert main(["example", "-o", "new", "--overwrite"]) == 0
    [((output, asked), _)] = calls
    assert (output, asked.model_dump()) == (Path("new"), {"overwrite": True})
    assert "Next: hoarfrost reconstruct new/particles.star -o run/" in capsys.readouterr().out


REPORT = SimpleNamespace(to_dict=lambda: {"fsc": [1.0, 0.5]}, lines=lambda: ["shell  FSC", "1      1.000"])


def test_evaluate_prints_the_lines_of_its_report(
    replace: Callable[..., Calls], capsys: pytest.CaptureFixture[str]
) -> None:
    calls = replace("evaluate", "evaluation.evaluate", REPORT)

    assert main(["evaluate", "map.mrc", "--reference", "truth.mrc"]) == 0

    assert calls == [((Path("map.mrc"), Path("truth.mrc"), EvaluateOptions()), {})]
    assert capsys.readouterr().out == "shell  FSC\n1      1.000\n"


def test_evaluate_json_is_one_object_and_nothing_else(
    replace: Callable[..., Calls], capsys: pytest.CaptureFixture[str]
) -> None:
    calls = replace("evaluate", "evaluation.evaluate", REPORT)
    options = "--poses run/particles.star --true-poses true.star --symmetry D7 --mask-diameter 180 --json"

    assert main(["evaluate", "map.mrc", "--reference", "truth.mrc", *options.split()]) == 0

    assert calls[0][0][2] == EvaluateOptions(
        poses=Path("run/particles.star"), true_poses=Path("true.star"), symmetry="D7", mask_diameter_A=180.0
    )
    assert json.loads(capsys.readouterr().out) == {"fsc": [1.0, 0.5]}
