"""How a run went: what its map explains of held-out particles, and how fine it was, against image gradients."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from hoarfrost.reporting.panel import legend_below, panel_figure
from hoarfrost.reporting.resolution import label_resolutions
from hoarfrost.reporting.run_folder import RunFolder

Event = dict[str, Any]
REFINEMENT = "refinement"
# Distinct for those who see no red or green.
START_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass(frozen=True)
class Phase:
    """Events in a row that belong together: a random start, or refinement."""

    name: str
    colour: str
    events: list[Event]


def phases(run: RunFolder, events: list[Event]) -> Iterator[Phase]:
    """The events of each random start and of refinement, in their order; with symmetry they may come again."""
    n_exact = len(run.settings["stages_r_max"])

    def number(event: Event) -> int:
        return -1 if event["stage"] >= n_exact else int(event["start"])

    for start, own in groupby(events, number):
        if start < 0:
            yield Phase(REFINEMENT, "#000000", list(own))
        else:
            yield Phase(f"start {start + 1}", START_COLOURS[start % len(START_COLOURS)], list(own))


def likelihood_figure(run: RunFolder) -> Figure:
    """Held-out NLL above the gain over an empty map, with standard errors, against image gradients.

    The NLL of another band limit is that of other data, so only that of the first is shown: all starts pass it.
    """
    figure, (above, below) = panel_figure(5.4, rows=2, legend_lines=1)
    first = run.judged[0]
    for phase in phases(run, run.judged):
        at_first = [event for event in phase.events if event["r_max"] == first["r_max"]]
        if at_first:
            _line_with_band(above, phase, at_first, "nll", "nll_standard_error")
        _line_with_band(below, phase, phase.events, "nll_gain", "nll_gain_standard_error")
    below.axhline(0, color="#777777", linewidth=1, linestyle=":")
    below.annotate("an empty map", (0.99, 0), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    above.set_ylabel(f"NLL to {first['resolution_A']:.0f} Å, nats a particle")
    below.set_ylabel("gain, nats a particle")
    _finish(figure, below)
    return figure


def resolution_figure(run: RunFolder) -> Figure:
    """The finest detail in use against image gradients, and the resolution that is claimed in the end."""
    figure, (panel,) = panel_figure(3.6, legend_lines=1)
    finest = 0.0
    for phase in phases(run, run.steps):
        x = [event["image_gradients"] for event in phase.events]
        y = [1 / event["resolution_A"] for event in phase.events]
        panel.step(x, y, where="post", color=phase.colour, linewidth=2, label=phase.name)
        panel.plot(x[-1:], y[-1:], "o", color=phase.colour, markersize=3)
        finest = max(finest, *y)
    curves = run.structures[0].curves
    if curves is not None:
        claimed_A = curves.resolution_A
        panel.axhline(1 / claimed_A, color="#cc3311", linewidth=1, linestyle="--")
        panel.annotate(
            f"half maps agree to {claimed_A:.1f} Å", (0.01, 1 / claimed_A), xycoords=("axes fraction", "data"),
            color="#cc3311", va="bottom", fontsize=8,
        )  # fmt: skip
        finest = max(finest, 1 / claimed_A)
    label_resolutions(panel.yaxis, run.length_A, 1.12 * finest)
    panel.set_ylim(0, 1.12 * finest)
    panel.set_ylabel("finest detail in use, Å")
    _finish(figure, panel)
    return figure


def _line_with_band(panel: Axes, phase: Phase, events: list[Event], name: str, error_name: str) -> None:
    x = np.array([event["image_gradients"] for event in events])
    y = np.array([np.nan if event.get(name) is None else event[name] for event in events])
    error = np.array([np.nan if event.get(error_name) is None else event[error_name] for event in events])
    panel.fill_between(x, y - error, y + error, color=phase.colour, alpha=0.2, linewidth=0)
    if len(x) == 1:  # a band of no width
        panel.errorbar(x, y, error, color=phase.colour, alpha=0.5, linewidth=1.5, capsize=2)
    panel.plot(x, y, ".-", color=phase.colour, linewidth=1.6, markersize=4, label=phase.name)


def _finish(figure: Figure, panel: Axes) -> None:
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.set_xlabel("image gradients")
    legend_below(figure, panel, columns=4)
