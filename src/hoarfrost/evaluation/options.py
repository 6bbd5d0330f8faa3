"""What a user may ask of the verbs for maps: every option with its bounds and its help text."""

from pathlib import Path
from typing import Any

from hoarfrost.options import OptionsModel, option

_PIXEL_SIZE: Any = option(
    None,
    "Pixel size of a map whose header tells none, in Å.",
    refusal="the pixel size must be positive, not {} Å",
    gt=0,
)
_MASK_DIAMETER: Any = option(
    None,
    "Diameter of a soft spherical mask put on both maps, in Å. None unless given.",
    refusal="the mask's diameter must be positive, not {} Å",
    gt=0,
)
_OVERWRITE: Any = option(False, "Replace the output if it exists.")


class EvaluateOptions(OptionsModel):
    """All that a user may ask of `hoarfrost.evaluate`."""

    poses: str | Path | None = option(
        None, "particles.star of the run, to judge its poses as well; needs the true poses."
    )
    true_poses: str | Path | None = option(
        None, "STAR file with the poses to judge them by: of the same particles, in the same order."
    )
    symmetry: str = option(
        "C1",
        "Symmetry that the run imposed, like D7: poses that show such a map alike are then one. It goes with the "
        "poses.",
    )
    mask_diameter_A: float | None = _MASK_DIAMETER
    pixel_size_A: float | None = _PIXEL_SIZE


class CompareOptions(OptionsModel):
    """All that a user may ask of `hoarfrost.compare`."""

    mask_diameter_A: float | None = _MASK_DIAMETER
    pixel_size_A: float | None = _PIXEL_SIZE


class FlipOptions(OptionsModel):
    """All that a user may ask of `hoarfrost.flip`."""

    particles: str | Path | None = option(
        None,
        "Particle file with the poses that belong to the map, such as particles.star of a run. A STAR file with the "
        "poses of the other hand is written beside the output, under its name.",
    )
    datadir: str | Path | None = option(None, "Folder that the image names of the particles are relative to.")
    pixel_size_A: float | None = _PIXEL_SIZE
    overwrite: bool = _OVERWRITE


class SymmetriseOptions(OptionsModel):
    """All that a user may ask of `hoarfrost.symmetrise`."""

    aligned: bool = option(False, "The axes of the map lie there already: do not look for them.")
    max_resolution_A: float | None = option(
        None, "Finest detail by which axes are placed, in Å. A twentieth of the box unless given."
    )
    pixel_size_A: float | None = _PIXEL_SIZE
    overwrite: bool = _OVERWRITE
