"""The options of a reconstruction: what is refused, what is chosen, and how it is written down."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from hoarfrost.errors import DataError, UsageError
from hoarfrost.options import made
from hoarfrost.particles.contrast import Contrast
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.settings import plan
from hoarfrost.reconstruction.settings.options import Options, RecordedOptions
from hoarfrost.reconstruction.settings.plan import DEFAULT_LAST_EXACT_R_MAX, resolve
from hoarfrost.reconstruction.settings.settings import Settings


def check(**options: Any) -> None:
    plan.check(made(Options, options))


def choose(n: int = 1000, box: int = 64, pixel_size_A: float = 5.0, **options: Any) -> Settings:
    """What is chosen for images that are blank, and so do not tell how wide a particle is."""

    def blank(rows: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(rows), box, box)

    table = SimpleNamespace(star=SimpleNamespace(path=Path("particles.star")))
    stack = SimpleNamespace(table=table, n_images=n, box=box, pixel_size_A=pixel_size_A, read_unchecked=blank)
    return resolve(cast(ParticleStack, stack), Options(**options), output=Path("run"))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"symmetry": "D0"}, "symmetry must be Cn or Dn with n from 1 to 99, T, O or I (like C4, D7), found 'D0'"),
        ({"method": "magic"}, "method must be one of auto, sgd, momentum"),
        ({"contrast": "grey"}, "contrast must be auto, white or black, found grey"),
        ({"device": "tpu"}, "device must be auto, cpu or cuda, found tpu"),
        ({"seed": -1}, "seed must lie between"),
        ({"seed": 2**63}, "seed must lie between"),
        ({"max_resolution_A": 0.0}, "--max-resolution must be a positive number, found 0"),
        ({"max_resolution_A": float("nan")}, "--max-resolution must be a positive number, found nan"),
        ({"diameter_A": -3.0}, "--diameter must be a positive number, found -3"),
        ({"epochs": 0.0}, "--epochs must be a positive number"),
        ({"epochs": float("inf")}, "--epochs must be a positive number"),
        ({"shift_extent_A": 0.0}, "--shift-extent must be a positive number"),
        ({"shift_sigma_A": -1.0}, "--shift-sigma must be zero or positive"),
        ({"shift_sigma_A": float("inf")}, "--shift-sigma must be zero or positive"),
        ({"batch_size": 0}, "--batch-size must be at least 1, found 0"),
        ({"threads": 0}, "--threads must be at least 1"),
        ({"held_out": -2}, "--held-out must be at least 1, found -2"),
        ({"classes": 11}, "--classes must be at most 10, found 11"),
        ({"checkpoint_every_s": -1.0}, "--checkpoint-every must be zero or positive, in seconds, found -1"),
        ({"checkpoint_every_s": float("nan")}, "--checkpoint-every must be zero or positive, in seconds, found nan"),
        ({"memory": "much"}, "--memory must be a size like 2GB or 800MB, found 'much'"),
        ({"epochs": "many"}, "found many"),
        ({"classes": 2, "method": "sgd"}, "several classes need the method auto, found sgd"),
        ({"classes": 2, "symmetry": "auto"}, "--symmetry auto needs the method auto and a single class"),
    ],
)
def test_options_that_make_no_sense_are_refused(option: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        check(**option)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="finds no CUDA GPU"):
        check(device="cuda")
    assert choose().device == "cpu"


def test_sensible_options_pass() -> None:
    check()
    check(symmetry="c1", shift_sigma_A=0.0, epochs=0.5, seed=2**63 - 1, device="cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"diameter_A": 321.0}, "--diameter 321 Å exceeds the box of 320.0 Å"),
        ({"held_out": 501}, "leaves too few of 1000 particles to train on; hold out at most 500"),
        ({"batch_size": 901}, "--batch-size 901 exceeds the 900 particles to train on"),
        ({"shift_extent_A": 81.0}, "--shift-extent 81 Å exceeds a quarter of the box, 80.0 Å"),
        (
            {"max_resolution_A": 10.0},
            "--max-resolution 10 Å is finer than refinement can reach with this box; the finest is 10.3 Å",
        ),
        ({"max_resolution_A": 200.0}, "--max-resolution 200 Å is coarser than half the box, 160.0 Å"),
    ],
)
def test_options_that_the_data_cannot_meet_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        choose(**options)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"box": 14}, "expected a box of 16 pixels or more, found 14"),
        ({"n": 19}, "expected at least 20 particles, found 19"),
    ],
)
def test_data_too_small_to_use_are_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError) as refusal:
        choose(**data)
    assert words in str(refusal.value)
    assert refusal.value.path == Path("particles.star")


def test_what_is_left_open_is_chosen_from_the_data() -> None:
    settings = choose()
    assert settings.diameter_A == pytest.approx(0.85 * 320)
    assert settings.shift_sigma_A == pytest.approx(0.03 * 320)
    assert settings.shift_extent_A == pytest.approx(3 * 0.03 * 320)
    assert settings.held_out == 100
    assert settings.batch_size == 100
    assert settings.threads >= 1
    assert settings.epochs is None
    assert settings.max_resolution_A == pytest.approx(320 / settings.refined_r_max[-1])


def test_few_particles_are_shared_out() -> None:
    settings = choose(n=60)
    assert settings.held_out == 12
    assert settings.batch_size == 25
    # A minibatch for each fold of the half that a start is trained on, where there are particles enough.
    assert choose(n=300).batch_size == (300 - 60) // 2 // 4
    assert choose(n=300, starts=1).batch_size == (300 - 60) // 4
    assert choose(n=30).batch_size == 30 - 6


def test_what_is_given_is_taken() -> None:
    settings = choose(
        diameter_A=200.0, shift_sigma_A=0.0, batch_size=30, held_out=50, epochs=2.0, threads=1, device="cpu"
    )
    assert (settings.diameter_A, settings.shift_sigma_A, settings.shift_extent_A) == (200, 0, 0)
    assert (settings.batch_size, settings.held_out, settings.epochs, settings.threads) == (30, 50, 2, 1)


@pytest.mark.parametrize("max_resolution_A", [None, 23.0, 30.0, 40.0, 45.0, 53.0, 60.0, 160.0])
@pytest.mark.parametrize("box", [64, 128])
def test_band_limits_grow_step_by_step_to_the_one_asked_for(max_resolution_A: float | None, box: int) -> None:
    settings = choose(box=box, pixel_size_A=320 / box, max_resolution_A=max_resolution_A)
    bands = settings.stages_r_max[:1] + settings.refined_r_max
    if max_resolution_A is not None:
        assert bands[-1] == pytest.approx(320 / max_resolution_A, abs=1e-3)
        assert settings.stages_r_max[-1] == pytest.approx(min(bands[-1], DEFAULT_LAST_EXACT_R_MAX), abs=1e-3)
    else:
        assert bands[-1] == box / 2 - 1
    assert bands[0] <= 6
    for limits in (bands, settings.stages_r_max):
        assert all(1 < b / a < 1.5 for a, b in itertools.pairwise(limits))


def test_methods_without_refinement_stay_with_sums_over_all_poses() -> None:
    settings = choose(method="sgd")
    assert settings.refined_r_max == ()
    assert settings.stages_r_max[-1] == DEFAULT_LAST_EXACT_R_MAX
    with pytest.raises(UsageError, match="finer than this method can reach"):
        choose(method="sgd", max_resolution_A=20.0)


def test_a_small_box_ends_below_its_nyquist_frequency() -> None:
    assert choose(box=16).refined_r_max[-1] <= 7
    assert choose(box=18, max_resolution_A=5 * 18 / 8).refined_r_max[-1] == 8
    with pytest.raises(UsageError, match="the finest is"):
        choose(box=18, max_resolution_A=5 * 18 / 8.5)


def test_the_settings_are_toml_that_reads_back() -> None:
    asked = {"datadir": 'a folder/with "quotes", a \\ and an Å', "epochs": 2.5, "threads": 3}
    settings = choose(**asked).model_copy(update={"initial": "map", "initial_map": "/a map.mrc", "initial_r_max": 9.2})
    settings = settings.with_contrast(Contrast.decide("auto", -9.5))
    assert (settings.contrast, settings.contrast_z) == ("black", -9.5)
    text = settings.to_toml()
    read = tomllib.loads(text)
    assert read == {
        **settings.model_dump(),
        "stages_r_max": list(settings.stages_r_max),
        "refined_r_max": list(settings.refined_r_max),
    }
    assert Settings(**read) == settings


def test_a_setting_that_is_none_is_left_out() -> None:
    read = tomllib.loads(choose().to_toml())
    assert "epochs" not in read
    assert "datadir" not in read


def test_settings_cannot_be_changed_or_misspelt() -> None:
    settings = choose()
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="sede"):
        Settings(**settings.model_dump(), sede=1)  # type: ignore[call-arg]


def test_every_setting_has_a_source() -> None:
    sources = choose().sources
    assert set(sources) == set(Settings.model_fields) - {"version", "torch_version", "sources"}
    assert {sources[name] for name in ("particles", "output")} == {"user"}
    for name in ("seed", "starts", "until_two_agree", "symmetry", "batch_size", "held_out", "epochs", "datadir"):
        assert sources[name] == "default", name
    for name in ("diameter_A", "max_resolution_A", "stages_r_max", "contrast", "box", "expected_bytes"):
        assert sources[name] == "data", name
    assert {sources[name] for name in ("device", "threads", "memory_bytes")} == {"machine"}


def test_what_the_user_gave_is_told_and_what_follows_from_it() -> None:
    given = choose(seed=4, starts=2, max_resolution_A=20.0, memory="4GB", contrast="black", threads=2, datadir="data")
    for name in ("seed", "starts", "until_two_agree", "max_resolution_A", "stages_r_max", "refined_r_max"):
        assert given.sources[name] == "user", name
    for name in ("memory_bytes", "contrast", "threads", "datadir"):
        assert given.sources[name] == "user", name
    assert given.with_contrast(Contrast.decide("black", 1.0)).sources == given.sources
    assert choose(symmetry="D7").sources["symmetry"] == "user"
    assert choose(symmetry="auto").sources["symmetry"] == "data"


def test_defaults_that_the_data_do_not_allow_come_from_the_data() -> None:
    few = choose(n=60).sources
    assert (few["batch_size"], few["held_out"]) == ("data", "data")
    asked = choose(n=60, batch_size=30, held_out=10).sources
    assert (asked["batch_size"], asked["held_out"]) == ("user", "user")


def test_settings_are_the_options_with_nothing_left_open() -> None:
    assert set(RecordedOptions.model_fields) < set(Settings.model_fields)
    settings, open_ones = choose(), {"datadir", "epochs"}
    assert {name for name in RecordedOptions.model_fields if getattr(settings, name) is None} == open_ones
