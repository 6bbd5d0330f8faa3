"""The picture of how well a run's half maps agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hoarfrost.evaluate.half_maps import FSC_THRESHOLD
from hoarfrost.io.fsc_star import FscCurves, read_fsc
from hoarfrost.report.png import save_png

# Dark enough, and told apart by those who see no red or green.
CURVES: dict[str, tuple[str, dict[str, Any]]] = {
    "unmasked": ("without mask", {"color": "#0072b2", "linewidth": 2.2}),
    "masked": ("in a mask (mask.mrc)", {"color": "#e69f00", "linewidth": 1.4, "linestyle": "--"}),
    "randomised": ("in the mask, random phases: what the mask adds", {"color": "#999999", "linewidth": 1.4}),
    "corrected": ("in the mask, corrected for what it adds", {"color": "#000000", "linewidth": 2.2}),
}
NICE_TICKS_A = (100, 50, 40, 30, 25, 20, 18, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5.5, 5, 4.5, 4, 3.5, 3, 2.5, 2)
LEAST_TICK_DISTANCE = 0.05


def draw_fsc(run: str | Path, picture: str | Path) -> None:
    """The curves of run/fsc.star against resolution, as a PNG at `picture`."""
    curves = read_fsc(Path(run) / "fsc.star")
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    panel = figure.subplots()
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
    panel.set_xlim(0, end)
    panel.set_ylim(-0.1, 1.12)
    ticks = _ticks_A(curves, end)
    panel.set_xticks([1 / tick for tick in ticks], [f"{tick:g}" for tick in ticks])
    panel.set_xlabel("resolution, Å (even steps in 1/Å)")
    panel.set_ylabel("Fourier shell correlation of the two half maps")
    panel.set_title(f"The half maps agree to {curves.resolution_A:.1f} Å (red dot)")
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    save_png(figure, Path(picture))


def _ticks_A(curves: FscCurves, end: float) -> list[float]:
    """Round numbers of Å between the first shell and `end`, in 1/Å, not too close to each other."""
    chosen: list[float] = []
    for tick in NICE_TICKS_A:
        last = 1 / chosen[-1] if chosen else 0.0
        if tick <= curves.length_A and 1 / tick <= end and 1 / tick - last >= LEAST_TICK_DISTANCE * end:
            chosen.append(tick)
    return chosen
