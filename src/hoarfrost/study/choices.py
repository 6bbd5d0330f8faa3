"""What a study was asked for, checked before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from hoarfrost.errors import UsageError
from hoarfrost.optim.registry import METHODS, MethodSpec
from hoarfrost.optim.third_party import find_method
from hoarfrost.study.presets import PRESETS, Preset
from hoarfrost.study.trial import BASELINES

DEFAULT_METHODS = (*METHODS, "auto", *BASELINES)


def choose_preset(
    name: str, *, epochs: float | None, n_images: int | None, band_limit: float | None, iterations: int | None
) -> Preset:
    """The preset of that name, with what the user changed in it; raises UsageError."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name}; known are {', '.join(PRESETS)}")
    preset = PRESETS[name]
    if epochs is not None:
        if not 0 < epochs < float("inf"):
            raise UsageError(f"--epochs must be a positive number, found {epochs:g}")
        preset = dataclasses.replace(preset, epochs=epochs)
    if n_images is not None:
        if n_images < 1:
            raise UsageError(f"the number of images must be 1 or more, found {n_images}")
        preset = dataclasses.replace(preset, n_images=n_images)
    if band_limit is not None:
        if not 0 < band_limit < 1:
            raise UsageError(f"--band-limit is a share of Nyquist, between 0 and 1, found {band_limit:g}")
        preset = dataclasses.replace(preset, band_limit=band_limit)
    if iterations is not None:
        if iterations < 1:
            raise UsageError(f"--baseline-iterations must be 1 or more, found {iterations}")
        preset = dataclasses.replace(preset, baseline_iterations=iterations)
    return preset


def choose_methods(texts: Sequence[str] | None) -> list[MethodSpec | str]:
    """The methods named, each once: a spec, or the name of `auto` or of a baseline; raises UsageError."""
    texts = DEFAULT_METHODS if texts is None else texts
    if not texts:
        raise UsageError("no methods were given to compare")
    chosen: list[MethodSpec | str] = []
    for text in dict.fromkeys(texts):
        if text == "auto" or text in BASELINES:
            chosen.append(text)
            continue
        try:
            chosen.append(find_method(text))
        except ValueError as error:
            raise UsageError(str(error)) from error
    return chosen


def check(
    preset: Preset,
    *,
    seeds: int,
    particles: str | Path | None,
    reference: str | Path | None,
    device: str,
    threads: int | None,
) -> None:
    """Raise UsageError for options that do not go together or make no sense."""
    if seeds < 1:
        raise UsageError(f"--seeds must be 1 or more, found {seeds}")
    if preset.needs_particles and particles is None:
        raise UsageError(f"preset {preset.name} needs --data particles.star")
    if reference is not None and particles is None:
        raise UsageError("--reference goes with --data; synthetic images know their truth")
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise UsageError(f"device must be auto, cpu or, where PyTorch finds a GPU, cuda; found {device}")
    if threads is not None and threads < 1:
        raise UsageError(f"--threads must be at least 1, found {threads}")
