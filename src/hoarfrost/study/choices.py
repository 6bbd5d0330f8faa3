"""What a study was asked for, checked before any work."""

import dataclasses
from collections.abc import Sequence

import torch

from hoarfrost.errors import UsageError
from hoarfrost.optim.registry import METHODS, MethodSpec
from hoarfrost.optim.third_party import find_method
from hoarfrost.study.options import StudyOptions
from hoarfrost.study.presets import PRESETS, Preset
from hoarfrost.study.trial import BASELINES

DEFAULT_METHODS = (*METHODS, "auto", *BASELINES)


def choose_preset(options: StudyOptions) -> Preset:
    """The preset that is named, with what the user changed in it."""
    names = ("epochs", "n_images", "band_limit", "baseline_iterations")
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return dataclasses.replace(PRESETS[options.preset], **changes)


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
            chosen.append(find_method(text, known=DEFAULT_METHODS))
        except ValueError as error:
            raise UsageError(str(error)) from error
    return chosen


def check(preset: Preset, options: StudyOptions) -> None:
    """Raise UsageError for options that do not go together."""
    if preset.needs_particles and options.particles is None:
        raise UsageError(f"preset {preset.name} needs --data particles.star")
    if options.reference is not None and options.particles is None:
        raise UsageError("--reference goes with --data; synthetic images know their truth")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device must be auto, cpu or, where PyTorch finds a GPU, cuda; found cuda")
