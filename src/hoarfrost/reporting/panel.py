"""Figures of a page's panels: as wide as a phone's screen, with margins that are the same in all.

They are shown up to twice as wide, and the text is readable at both. Margins are given, as finding them takes as long
again as the drawing.
"""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH_IN = 4.8
LEFT_IN, RIGHT_IN, TOP_IN, BOTTOM_IN = 0.75, 0.1, 0.12, 0.5
LEGEND_LINE_IN = 0.2
FONTS: Any = {"font.size": 10, "axes.titlesize": 10, "legend.fontsize": 8.5}


def panel_figure(height_in: float, *, rows: int = 1, legend_lines: int = 0) -> tuple[Figure, list[Axes]]:
    """A figure of axes below each other with one x axis, and room for `legend_lines` of a legend at its foot."""
    figure = Figure(figsize=(WIDTH_IN, height_in))
    figure.subplots_adjust(
        left=LEFT_IN / WIDTH_IN,
        right=1 - RIGHT_IN / WIDTH_IN,
        top=1 - TOP_IN / height_in,
        bottom=(BOTTOM_IN + LEGEND_LINE_IN * legend_lines) / height_in,
        hspace=0.08,
    )
    return figure, list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])


def legend_below(figure: Figure, panel: Axes, columns: int) -> None:
    """A legend at the foot of a figure, of what is in a panel; of lines with one label, the last."""
    handles, labels = panel.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    figure.legend([*named.values()], [*named], loc="lower center", ncols=columns, frameon=False, borderaxespad=0.1)
