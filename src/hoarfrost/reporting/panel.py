"""Figures of a page's panels: as wide as a phone's screen, with margins that are the same in all.

Elsewhere they are shown up to twice as wide, and of both the text is readable. Margins are given, not found out, which
takes as long again as the drawing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH_IN = 4.8
LEFT_IN, RIGHT_IN, TOP_IN, BOTTOM_IN = 0.75, 0.1, 0.12, 0.5
LEGEND_LINE_IN = 0.2
FONTS: Any = {"font.size": 10, "axes.titlesize": 10, "legend.fontsize": 8.5}


def panel_figure(height_in: float, *, rows: int = 1, legend_lines: int = 0) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches with axes below each other, which share theirs in x, and room for a legend below."""
    figure = Figure(figsize=(WIDTH_IN, height_in))
    figure.subplots_adjust(
        left=LEFT_IN / WIDTH_IN,
        right=1 - RIGHT_IN / WIDTH_IN,
        top=1 - TOP_IN / height_in,
        bottom=(BOTTOM_IN + LEGEND_LINE_IN * legend_lines) / height_in,
        hspace=0.08,
    )
    return figure, list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])


def legend_below(figure: Figure, handles: Mapping[str, Any], columns: int) -> None:
    """A legend at the foot of a figure, of names and what stands for each."""
    figure.legend([*handles.values()], [*handles], loc="lower center", ncols=columns, frameon=False, borderaxespad=0.1)
