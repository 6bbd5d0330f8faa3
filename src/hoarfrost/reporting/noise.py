"""The spectrum of the noise in a run's images."""

import math

import numpy as np
from matplotlib.figure import Figure

from hoarfrost.io.noise_star import NoiseSpectra
from hoarfrost.reporting.panel import legend_below, panel_figure
from hoarfrost.reporting.resolution import LEAST_IN_PANEL, label_x_axis

MOST_GROUPS_NAMED = 8
COLUMNS = 3


def noise_figure(spectra: NoiseSpectra, finest_A: float) -> Figure:
    """Variance of the noise against resolution: that in all images, and in each optics group where there are more.

    A line marks the finest detail that the run may use, `finest_A`.
    """
    groups = spectra.of_groups if len(spectra.of_groups) > 1 else {}
    n_named = 1 + min(len(groups), MOST_GROUPS_NAMED)
    figure, (panel,) = panel_figure(3.6, legend_lines=math.ceil(n_named / COLUMNS) if groups else 0)
    frequency = np.arange(len(spectra.in_use)) / spectra.length_A
    for place, (number, spectrum) in enumerate(groups.items()):
        name = f"optics group {number}" if place < MOST_GROUPS_NAMED else None
        panel.plot(frequency, spectrum, linewidth=1, label=name)
    panel.plot(frequency, spectra.in_use, color="black", linewidth=2, label="all images")
    panel.axhline(1, color="#777777", linewidth=1, linestyle=":")
    panel.annotate("white noise", (0.01, 1), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
    panel.axvline(1 / finest_A, color="#555555", linewidth=1, linestyle="-.")
    panel.annotate(
        f"images used to {finest_A:.1f} Å at most", (1 / finest_A, 0.03), xycoords=("data", "axes fraction"),
        rotation=90, ha="right", va="bottom", fontsize=8, color="#555555",
    )  # fmt: skip
    label_x_axis(panel, float(frequency[-1]), spectra.length_A, LEAST_IN_PANEL)
    panel.set_ylim(bottom=0)
    panel.set_ylabel("noise variance (1: white noise)")
    if groups:
        legend_below(figure, panel, COLUMNS)
    return figure
