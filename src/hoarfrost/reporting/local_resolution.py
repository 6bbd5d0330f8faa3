"""The picture of a map's local resolution: its slices, coloured within the particle."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from hoarfrost.evaluation.local_resolution import FILE
from hoarfrost.io.mrc import read_volume
from hoarfrost.reporting.panel import WIDTH_IN
from hoarfrost.reporting.pictures import AXES

# From fine to coarse; as bright at one end as at the other, and distinct for those who see no red or green.
COLOURS = "viridis_r"
# Of the particle's voxels, those that the colours do not tell apart at either end.
TAIL = 0.02
HEIGHT_IN = 2.6
# Of the particle's reach, what is shown.
ROOM = 1.15


def local_resolution_figure(folder: Path) -> Figure:
    """Three central slices of map.mrc in the folder of a map, coloured by local_resolution.mrc where mask.mrc is."""
    (volume, pixel_size_A), (local_A, _), (mask, _) = (
        read_volume(folder / name) for name in ("map.mrc", FILE, "mask.mrc")
    )
    inside = local_A[mask > 0.5] if (mask > 0.5).any() else local_A
    finest_A, coarsest_A = np.quantile(inside, [TAIL, 1 - TAIL])
    darkest, brightest = np.percentile(volume, [0.5, 99.8])
    half_A = len(volume) * pixel_size_A / 2
    shown_A = min(half_A, ROOM * reach_voxels(mask) * pixel_size_A)
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN))
    figure.subplots_adjust(left=0.12, right=0.99, top=0.88, bottom=0.36, wspace=0.55)
    panels = figure.subplots(1, 3)
    for number, (panel, axis) in enumerate(zip(panels, AXES, strict=True)):
        density, colour, opacity = (np.take(each, len(each) // 2, axis=number) for each in (volume, local_A, mask))
        # Density as brightness, so that its shape is seen in the colours.
        brightness = np.clip((density - darkest) / max(brightest - darkest, 1e-12), 0, 1)
        placed = {"origin": "lower", "extent": (-half_A, half_A, -half_A, half_A)}
        panel.imshow(density, cmap="gray", vmin=darkest, vmax=brightest, **placed)
        shown = panel.imshow(
            colour, cmap=COLOURS, vmin=finest_A, vmax=coarsest_A, alpha=np.clip(opacity * brightness, 0, 1), **placed
        )
        across = [a for a in AXES if a != axis]
        panel.set_xlim(-shown_A, shown_A)
        panel.set_ylim(-shown_A, shown_A)
        panel.set_title(f"slice at {axis} = 0")
        panel.set_ylabel(across[0], labelpad=-2)
        panel.set_xlabel(f"{across[1]} (Å)")
    bar = figure.colorbar(shown, cax=figure.add_axes((0.2, 0.16, 0.6, 0.03)), orientation="horizontal")
    assert bar.solids is not None
    bar.solids.set_alpha(1.0)
    bar.set_label("local resolution, Å", labelpad=1)
    return figure


def reach_voxels(mask: npt.NDArray[np.floating]) -> float:
    """How far a mask (n, n, n) reaches from the middle along any axis, in voxels; half of n where it is empty."""
    inside = np.argwhere(mask > 0.5)
    return float(np.abs(inside - len(mask) // 2).max()) if len(inside) else len(mask) / 2
