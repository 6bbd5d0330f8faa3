"""The picture of how well a run's half maps agree."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from hoarfrost.evaluation.half_maps import FSC_THRESHOLD
from hoarfrost.io.fsc_star import FscCurves, read_fsc
from hoarfrost.reporting.encode import save_png
from hoarfrost.reporting.panel import legend_below, panel_figure

# Dark enough, and distinct for those who see no red or green.
CURVES: dict[str, tuple[str, dict[str, Any]]] = {
    "unmasked": ("without mask", {"color": "#0072b2", "linewidth": 2.2}),
    "masked": ("in a mask (mask.mrc)", {"color": "#e69f00", "linewidth": 1.4, "linestyle": "--"}),
    "randomised": ("in the mask, random phases: what the mask adds", {"color": "#999999", "linewidth": 1.4}),
    "corrected": ("in the mask, corrected for what it adds", {"color": "#000000", "linewidth": 2.2}),
}
NICE_TICKS_A = (300, 200, 150, 100, 70, 50, 40, 30, 25, 20, 18, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5.5, 5, 4.5, 4,
                3.5, 3, 2.5, 2)  # fmt: skip
# Of the axis, in a picture of its own and in a panel of a page.
LEAST_TICK_DISTANCE = 0.05
LEAST_IN_PANEL = 0.085


def draw_fsc(run: str | Path, picture: str | Path) -> None:
    """The curves of run/fsc.star against resolution, as a PNG at `picture`."""
    curves = read_fsc(Path(run) / "fsc.star")
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    panel = figure.subplots()
    _draw_curves(panel, curves, LEAST_TICK_DISTANCE)
    panel.set_ylabel("Fourier shell correlation of the two half maps")
    panel.set_title(f"The half maps agree to {curves.resolution_A:.1f} Å (red dot)")
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    save_png(figure, Path(picture))


def fsc_figure(curves: FscCurves) -> Figure:
    """The same as a panel of a page."""
    figure, (panel,) = panel_figure(4.5, legend_lines=len(CURVES))
    _draw_curves(panel, curves, LEAST_IN_PANEL)
    panel.set_ylabel("Fourier shell correlation")
    legend_below(figure, panel, columns=1)
    return figure


def _draw_curves(panel: Axes, curves: FscCurves, least_tick_distance: float) -> None:
    # The first shell beyond the band limit, which holds zeros, shows where the curves are taken to end.
    last = min(int(curves.length_A / curves.band_limit_A + 1e-6) + 1, len(curves.unmasked) - 1)
    shells = np.arange(1, last + 1)
    for name, (label, style) in CURVES.items():
        panel.plot(shells / curves.length_A, getattr(curves, name)[shells], label=label, **style)
    limit = 1 / curves.band_limit_A
    end = 1.06 * max(limit, shells[-1] / curves.length_A)
    panel.axhline(0, color="black", linewidth=0.6)
    panel.axhline(FSC_THRESHOLD, color="#cc3311", linewidth=1, linestyle=":")
    panel.text(0.995 * end, FSC_THRESHOLD + 0.012, f"{FSC_THRESHOLD}", color="#cc3311", ha="right", va="bottom")
    panel.axvline(limit, color="#555555", linewidth=1, linestyle="-.")
    panel.text(limit, 1.06, f"images used to {curves.band_limit_A:.1f} Å ", color="#555555", ha="right", va="center")
    panel.plot([1 / curves.resolution_A], [FSC_THRESHOLD], "o", color="#cc3311", markersize=7, clip_on=False, zorder=5)
    panel.set_ylim(-0.1, 1.12)
    label_x_axis(panel, end, curves.length_A, least_tick_distance)


def label_x_axis(
    panel: Axes, end: float, length_A: float = math.inf, least_distance: float = LEAST_TICK_DISTANCE
) -> None:
    """Make the x axis one of resolutions, which goes in 1/Å from 0 to `end`; see `label_resolutions`."""
    label_resolutions(panel.xaxis, length_A, end, least_distance)
    panel.set_xlim(0, end)
    panel.set_xlabel("resolution, Å (even steps in 1/Å)")


def label_resolutions(axis: Axis, length_A: float, end: float, least_distance: float = LEAST_IN_PANEL) -> None:
    """Put Å on an axis that goes in 1/Å from 0 to `end`: round numbers between the box and that, not too close."""
    ticks: list[float] = []
    for tick in NICE_TICKS_A:
        last = 1 / ticks[-1] if ticks else 0.0
        if tick <= length_A and 1 / tick <= end and 1 / tick - last >= least_distance * end:
            ticks.append(tick)
    axis.set_ticks([1 / tick for tick in ticks], [f"{tick:g}" for tick in ticks])
