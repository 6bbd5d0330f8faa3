"""A map made small for the isosurface that the page's reader can turn."""

import base64
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.reporting.encode import grey_png
from hoarfrost.reporting.isosurface import VIEW, level_enclosing, render_isosurface

VOXELS = 48
# Levels that the reader can choose enclose such shares of the box.
MOST_ENCLOSED, LEAST_ENCLOSED = 0.25, 0.002
STEPS = 32767
STILL_PIXELS = 90  # keeps the memory for the rays below that of the rest of the page


def small_map(volume: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """The map (n, n, n) in a box of 48 voxels, in standard deviations from its mean."""
    resized = fourier_resize(torch.from_numpy(np.asarray(volume, dtype=np.float64)), VOXELS).numpy()
    return np.asarray((resized - resized.mean()) / max(float(resized.std()), 1e-12))


def default_level(small: npt.NDArray[np.float64]) -> float:
    """A level between the particle and what surrounds it, by Otsu's criterion over all values.

    Where it encloses more or less than the reader could choose, the nearest that does not.
    """
    values = np.sort(small.flatten())
    total = np.cumsum(values)
    below = np.arange(1, len(values))
    above = len(values) - below
    between = below * above * (total[:-1] / below - (total[-1] - total[:-1]) / above) ** 2
    level = float(values[int(between.argmax())])
    lowest, highest = limits(small)
    return min(max(level, lowest), highest)


def limits(small: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The lowest and the highest level to choose."""
    return level_enclosing(small, MOST_ENCLOSED), level_enclosing(small, LEAST_ENCLOSED)


def still_png(small: npt.NDArray[np.float64]) -> bytes:
    """A still picture of the surface at the default level, as the bytes of a PNG file."""
    enclosed = float((small > default_level(small)).mean())
    shades = render_isosurface(small, VIEW, enclosed, STILL_PIXELS)
    return grey_png(np.where(np.isfinite(shades), shades, 1.0))


def describe_surface(small: npt.NDArray[np.float64], length_A: float) -> dict[str, Any]:
    """What page.js draws of a small map of a box of `length_A`: 16-bit values in steps, x fastest, and levels in σ."""
    step = float(np.abs(small).max()) / STEPS
    lowest, highest = limits(small)
    values = np.round(small / max(step, 1e-12)).astype("<i2")
    return {
        "n": VOXELS,
        "voxel_A": length_A / VOXELS,
        "step": step,
        "values": base64.b64encode(values.tobytes()).decode("ascii"),
        "level": default_level(small),
        "lowest": lowest,
        "highest": highest,
    }
