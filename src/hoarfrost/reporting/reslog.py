"""The picture of how a map's resolution grows with the number of its particles."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hoarfrost.evaluation.reslog import fit_reslog
from hoarfrost.io.reslog_star import NAME, read_reslog
from hoarfrost.reporting.panel import legend_below, panel_figure
from hoarfrost.reporting.resolution import label_resolutions


def reslog_figure(folder: Path) -> Figure:
    """1/d² of half maps against the number of their particles, the line through it, and what twice as many would give.

    Raises DataError for a file that cannot be read.
    """
    n_particles, resolution_A, band_limit_A = read_reslog(folder / NAME)
    line = fit_reslog(n_particles, resolution_A, band_limit_A)
    figure, (panel,) = panel_figure(3.6, legend_lines=1)
    panel.plot(n_particles, 1 / resolution_A, "o", color="#000000", label="half maps of so many particles")
    most, finest = float(n_particles.max()), float(resolution_A.min())
    if line is not None:
        numbers = np.geomspace(0.8 * n_particles.min(), 2 * most, 50)
        panel.plot(numbers, [1 / line.resolution_A(n) for n in numbers], color="#0072b2", linewidth=1.6)
        twice_A = line.with_twice_A
        panel.plot(
            [2 * most], [1 / twice_A], "o", mfc="white", color="#cc3311", label=f"twice as many: {twice_A:.1f} Å"
        )
        finest = min(finest, twice_A)
    panel.set_xscale("log")
    ticks = [*n_particles.tolist(), *([] if line is None else [2 * most])]
    panel.set_xticks(ticks, [f"{number:,.0f}" for number in ticks])
    panel.minorticks_off()
    panel.set_xlabel("particles (even steps in their logarithm)")
    low, high = 0.9 / float(resolution_A.max()), 1.1 / finest
    panel.set_ylim(low, high)
    label_resolutions(panel.yaxis, 1 / low, high, least_distance=0.03)
    panel.set_ylabel("resolution (FSC 0.143), Å")
    legend_below(figure, panel, columns=2)
    return figure
