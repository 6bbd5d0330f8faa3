"""What a user may ask of `select`: every criterion with its bounds and its help text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hoarfrost.options import OptionsModel, option

SMALLEST_BOX = 16


def _probability(text: str) -> Any:
    return option(None, text, refusal="a probability lies between 0 and 1, found {}", ge=0, le=1)


class Columns(OptionsModel):
    """Criteria of one column each; particles meet those that are given, all of them."""

    min_junk: float | None = _probability("Least probability of being junk.")
    max_junk: float | None = _probability("Greatest probability of being junk, such as 0.5.")
    classes: Sequence[int] | None = option(
        None, "Classes to take, counted from 1 as rlnClassNumber counts them.", flags=("--class",)
    )
    min_pose_probability: float | None = _probability("Least probability of the pose.")
    max_pose_probability: float | None = _probability("Greatest probability of the pose.")
    min_log_evidence: float | None = option(None, "Least log-evidence, in nats.")
    max_log_evidence: float | None = option(None, "Greatest log-evidence, in nats.")
    min_defocus_A: float | None = option(None, "Least defocus, the mean of both axes, in Å, underfocus positive.")
    max_defocus_A: float | None = option(None, "Greatest defocus, likewise.")
    micrographs: Sequence[str] | None = option(
        None,
        "Patterns of micrographs' names as of files in a shell, of which one has to fit: the whole name, or the part "
        "behind its last slash.",
        flags=("--micrograph",),
    )


class SelectOptions(Columns):
    """All that a user may ask of `hoarfrost.select`."""

    view_deg: tuple[float, float] | None = option(
        None, "Direction to take views about: RELION's rot and tilt, in degrees.", flags=("--view",)
    )
    within_deg: float = option(
        15.0,
        "Greatest angle between a view and that direction, in degrees.",
        flags=("--within",),
        refusal="the angle about a view must lie between 0 and 180 degrees, not {}",
        gt=0,
        le=180,
    )
    n_random: int | None = option(
        None,
        "How many to take at random from those that meet the other criteria.",
        flags=("--random",),
        refusal="the number of particles must be 1 or more, not {}",
        ge=1,
    )
    seed: int = option(0, "Number that the random choice follows from.")
    invert_choice: bool = option(False, "Take all other particles in place of the chosen ones.")
    box: int | None = option(
        None,
        "Side in pixels to shrink the images to by Fourier cropping, an even number. They are written beside the "
        "output, under its name with .mrcs.",
        refusal=f"the box must be even, of {SMALLEST_BOX} pixels or more, not {{}}",
        ge=SMALLEST_BOX,
        multiple_of=2,
    )
    float16: bool = option(
        False, "Write the images of --box as 16-bit floats (MRC mode 12), which RELION reads from version 4 on."
    )
    datadir: str | Path | None = option(
        None,
        "Folder that the image names are relative to, such as the project folder. By default, that of the file, or one "
        "above it.",
    )
    overwrite: bool = option(False, "Replace the output if it exists.")
