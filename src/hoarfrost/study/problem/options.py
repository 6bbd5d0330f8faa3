"""What a user may ask of `problem`: every option with its help text."""

from pathlib import Path
from typing import Literal

from hoarfrost.options import OptionsModel, option

BandName = Literal["coarse", "fine"]
"""The band limits: coarse, 4 Fourier pixels; fine, 6."""


class ProblemOptions(OptionsModel):
    """All that a user may ask of `hoarfrost.problem`."""

    band: BandName = option(
        "coarse", "The finest detail in use: coarse, 4 Fourier pixels, or fine, 6, where a run begins."
    )
    dtype: Literal["float32", "float64"] = option(
        "float32", "The precision of all sums. In float64 no pose is left out, and derivatives are exact to rounding."
    )
    arrays: Literal["numpy", "torch"] = option(
        "numpy", "What x0, truth and minibatches are given as. Methods answer in the kind that they are given."
    )
    datadir: str | Path | None = option(
        None, "For particles of your own: folder that image names are relative to. By default, that of the STAR file."
    )
    reference: str | Path | None = option(
        None, "For particles of your own: their known map, for fsc and truth; in their box and pixel size."
    )
