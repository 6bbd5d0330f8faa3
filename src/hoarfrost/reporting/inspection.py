"""Pictures of an inspection: some particles, the noise of the background, and what the CTFs of all particles tell."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hoarfrost.inspection.ctf import RISEN
from hoarfrost.inspection.result import CTFCoverage, Inspection, Montage, NoiseSpectrum
from hoarfrost.io.atomic import write_text_atomically
from hoarfrost.io.folders import make_folder
from hoarfrost.reporting.encode import own_style, save_png
from hoarfrost.reporting.resolution import label_x_axis

FILES = ("montage.png", "noise.png", "ctf.png", "inspect.json")
COLUMNS = 8
# Of a tile's side.
GAP, BAR, BAR_PLACE = 0.06, 0.4, 0.06
NICE_BARS_A = (10, 20, 50, 100, 200, 500, 1000)
TEXT: dict[str, Any] = {
    "color": "#ffd24d",
    "fontsize": 6.5,
    "bbox": {"facecolor": "black", "alpha": 0.6, "pad": 1, "linewidth": 0},
}
RAW_PERCENTILES, SMOOTH_PERCENTILES = (1, 99), (0.2, 99.8)


@own_style()
def write_inspection(found: Inspection, folder: str | Path) -> None:
    """Write inspect.json, ctf.png and, of images that could be read, montage.png and noise.png into a folder.

    Raises UsageError where that cannot be done.
    """
    folder = make_folder(folder, FILES)
    write_text_atomically(folder / "inspect.json", json.dumps(found.to_dict(), indent=2) + "\n")
    save_png(draw_ctf(found.ctf), folder / "ctf.png")
    if found.montage is not None:
        save_png(draw_montage(found.montage, found.diameter_A), folder / "montage.png")
    if found.noise is not None:
        save_png(draw_noise(found.noise), folder / "noise.png")


def draw_montage(montage: Montage, diameter_A: float | None = None) -> Figure:
    """Particles as they are above the same, low-passed, each in its own grey scale; with a scale bar.

    A circle shows how wide particles seem to be, in the first low-passed one.
    """
    n = len(montage.rows)
    columns = min(COLUMNS, n)
    rows = -(-n // columns)
    figure = Figure(figsize=(1.25 * columns + 0.4, 2 * (1.25 * rows + 0.45)), layout="constrained")
    titles = ("as they are", f"low-passed to {montage.low_pass_A:.0f} Å")
    for panel, images, title, percentiles in zip(
        figure.subplots(2, 1),
        (montage.raw, montage.smooth),
        titles,
        (RAW_PERCENTILES, SMOOTH_PERCENTILES),
        strict=True,
    ):
        box = images.shape[-1]
        step = box + max(1, round(GAP * box))
        mosaic = np.full((rows * step, columns * step), np.nan)
        for place, (image, number) in enumerate(zip(images, montage.rows, strict=True)):
            top, left = place // columns * step, place % columns * step
            low, high = np.percentile(image, percentiles)
            mosaic[top : top + box, left : left + box] = np.clip((image[::-1] - low) / max(high - low, 1e-12), 0, 1)
            panel.text(left + 0.03 * box, top + 0.04 * box, str(number), ha="left", va="top", **TEXT)
        panel.imshow(mosaic, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        panel.set_title(f"Particles, {title} (yellow: row in the file)", fontsize=10)
        panel.set_axis_off()
        _draw_bar(panel, box, montage.pixel_size_A)
        if diameter_A is not None and panel.get_subplotspec().rowspan.start == 1:
            angle = np.linspace(0, 2 * np.pi, 90)
            radius = diameter_A / montage.pixel_size_A / 2
            middle = box // 2
            panel.plot(
                middle + radius * np.cos(angle), box - 1 - middle + radius * np.sin(angle), color="#4dc3ff", linewidth=1
            )
    return figure


def draw_noise(noise: NoiseSpectrum) -> Figure:
    """The variance of the background in each shell, against resolution."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    panel = figure.subplots()
    panel.semilogy(noise.frequencies_per_A, np.maximum(noise.variance, 1e-6), color="#0072b2", linewidth=2)
    panel.axhline(1, color="#999999", linewidth=1, linestyle=":")
    panel.text(noise.frequencies_per_A[-1], 1, "white noise ", ha="right", va="bottom", color="#777777", fontsize=9)
    low, high = panel.get_ylim()
    panel.set_ylim(min(low, 0.5), max(high, 2))  # nearly white noise would fill the picture with its wiggles
    panel.set_ylabel("variance of the background")
    panel.set_title("Noise of the images, normalised to a variance of 1 in each pixel")
    label_x_axis(panel, float(noise.frequencies_per_A[-1]))
    return figure


def draw_ctf(ctf: CTFCoverage) -> Figure:
    """The mean of CTF² over all particles, against resolution, with what is hardly covered; and the defocus values."""
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    panel, histogram = figure.subplots(1, 2, width_ratios=(2.2, 1))
    end = float(ctf.frequencies_per_A[-1])
    for coarse_A, fine_A in ctf.weak_A:
        panel.axvspan(1 / coarse_A, 1 / fine_A, color="#cc3311", alpha=0.18, linewidth=0)
    panel.plot(ctf.frequencies_per_A, ctf.mean_square, color="#0072b2", linewidth=2)
    panel.set_ylim(0, 1.02)
    panel.set_ylabel("mean of CTF² over the particles")
    panel.set_title(f"Signal by resolution; {_told_of(ctf)}", fontsize=11)
    label_x_axis(panel, end)
    histogram.hist(ctf.defocus_um, bins=40, color="#0072b2")
    histogram.set_xlabel("defocus, µm")
    histogram.set_ylabel("particles")
    histogram.set_title("Defocus", fontsize=11)
    return figure


def _told_of(ctf: CTFCoverage) -> str:
    """The curve in a few words."""
    if ctf.weak_A:
        return "red: hardly any particle tells anything"
    risen = np.flatnonzero(ctf.mean_square >= RISEN)
    if not risen.size:
        return f"nowhere above {max(ctf.mean_square):.2f}"
    return f"beyond {1 / ctf.frequencies_per_A[risen[0]]:.0f} Å nowhere below {ctf.mean_square[risen[0] :].min():.2f}"


def _draw_bar(panel: Axes, box: int, pixel_size_A: float) -> None:
    """A scale bar of a round length in the first tile, lower left."""
    length_A = max((bar for bar in NICE_BARS_A if bar <= BAR * box * pixel_size_A), default=NICE_BARS_A[0])
    left, bottom = BAR_PLACE * box, (1 - BAR_PLACE) * box
    panel.plot([left, left + length_A / pixel_size_A], [bottom, bottom], color="#ffd24d", linewidth=2.5)
    panel.text(left, bottom - 0.06 * box, f"{length_A} Å", ha="left", va="bottom", **TEXT)
