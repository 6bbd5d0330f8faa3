"""What a user may ask of `benchmark`: every option with its bounds and its help text."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from hoarfrost.options import DeviceName, OptionsModel, option


class StudyOptions(OptionsModel):
    """All that a user may ask of `hoarfrost.benchmark`. None means: as the preset has it."""

    preset: Literal["quick", "paper-synthetic", "paper-real"] = option(
        "quick",
        "quick ends in minutes. paper-synthetic is the published comparison, with 50,000 images of a drawn molecule. "
        "paper-real has its settings for particles that the user brings.",
        refusal="there is no preset {}; known are quick, paper-synthetic, paper-real",
    )
    methods: Sequence[str] | None = option(
        None,
        "Which to compare: sgd, momentum, nesterov, adagrad, tonga, olbfgs, hf, sag, adam, auto, projection-matching, "
        "batch-em, or any torch optimiser as path.to.Class:option=value or module:Class. All of ours unless given.",
    )
    particles: str | Path | None = option(
        None, "RELION STAR file of particles to use in place of synthetic images.", flags=("--data",)
    )
    datadir: str | Path | None = option(
        None, "Folder that the image names in the STAR file are relative to. By default, that of the STAR file."
    )
    reference: str | Path | None = option(
        None, "The known map of these particles, for FSC; in their box and pixel size."
    )
    seeds: int = option(1, "How many random starts.", refusal="--seeds must be 1 or more, found {}", ge=1)
    epochs: float | None = option(None, "Passes over the images, for each method.", gt=0)
    n_images: int | None = option(
        None, "How many synthetic images.", refusal="the number of images must be 1 or more, found {}", ge=1
    )
    band_limit: float | None = option(
        None,
        "Finest detail to use, as a part of Nyquist, between 0 and 1.",
        refusal="--band-limit is a share of Nyquist, between 0 and 1, found {}",
        gt=0,
        lt=1,
    )
    baseline_iterations: int | None = option(
        None, "Iterations of each baseline.", refusal="--baseline-iterations must be 1 or more, found {}", ge=1
    )
    ctf_from: str | Path | None = option(None, "RELION STAR file to draw the CTFs of synthetic images from.")
    sensitivity: bool = option(True, "Repeat each method that has a step size with a third of it and three times it.")
    device: DeviceName = option(
        "auto",
        "Where to compute; auto takes the GPU if there is one.",
        refusal="device must be auto, cpu or, where PyTorch finds a GPU, cuda; found {}",
    )
    threads: int | None = option(None, "CPU threads to use. All cores unless given.", ge=1)
    overwrite: bool = option(False, "Replace the study folder if it exists and holds nothing but what benchmark wrote.")
    progress: Callable[[Any], None] | None = option(None, "Called with every `hoarfrost.study.benchmark.Progress`.")
