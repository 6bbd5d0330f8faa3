"""The still pictures of a study's report: image formation, examples, and maps as isosurfaces and slices."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from hoarfrost.io.mrc import read_volume
from hoarfrost.reporting.curves import label_of
from hoarfrost.reporting.isosurface import DEFAULT_ENCLOSED, VIEW, render_isosurface

Array = npt.NDArray[np.floating]


def draw_image_formation(images: dict[str, Array]) -> Figure:
    """How an image comes about: slice, CTF, their product, shift, noise."""
    steps = (
        ("slice", "projection P V"),
        ("ctf", "CTF, in Fourier space"),
        ("modulated", "projection × CTF"),
        ("shifted", "shifted"),
        ("noisy", "with noise: the image"),
    )
    figure = Figure(figsize=(12, 2.9), layout="constrained")
    for panel, (name, title) in zip(figure.subplots(1, len(steps)), steps, strict=True):
        panel.imshow(images[name], cmap="gray", origin="lower")
        panel.set_title(title, fontsize=10)
        panel.set_axis_off()
    return figure


def draw_particles(images: Array) -> Figure:
    """Images as they are."""
    figure = Figure(figsize=(12, 1.9), layout="constrained")
    for panel, image in zip(figure.subplots(1, len(images)), images, strict=True):
        panel.imshow(image, cmap="gray", origin="lower")
        panel.set_axis_off()
    return figure


def draw_maps(columns: list[tuple[str, list[tuple[str, Array | None]]]], enclosed: float) -> Figure:
    """Maps as isosurface above a central slice: (row's name, [(title, map or None)]) each, one figure."""
    n_columns = max(len(maps) for _, maps in columns)
    n_rows = len(columns)
    figure = Figure(figsize=(1.0 + 2.6 * n_columns, 1.75 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, 2 * n_columns, squeeze=False)
    surface = matplotlib.colormaps["bone"].with_extremes(bad="white")
    for row, (name, maps) in zip(grid, columns, strict=True):
        for panel in row:
            panel.set_xticks([])
            panel.set_yticks([])
            for spine in panel.spines.values():
                spine.set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for index, (title, volume) in enumerate(maps):
            left, right = row[2 * index], row[2 * index + 1]
            left.set_title(title, fontsize=8, loc="left")
            if volume is None or not np.any(volume):
                left.text(0.5, 0.5, "no map", ha="center", va="center", transform=left.transAxes, fontsize=8)
                continue
            left.imshow(render_isosurface(volume, VIEW, enclosed), cmap=surface, vmin=0, vmax=1, origin="lower")
            low, high = np.percentile(volume, [0.5, 99.8])
            right.imshow(
                volume[volume.shape[0] // 2], cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="bilinear"
            )
    return figure


def map_rows(study: Path, results: dict[str, Any], wanted: list[tuple[str, int | None]]) -> tuple[list[Any], float]:
    """Rows for `draw_maps`, one for each method, and the part of the box that surfaces are to enclose.

    `wanted` are (method, image gradients), the latter None for the last map.
    """
    truth = study / "maps" / "truth.mrc"
    enclosed = DEFAULT_ENCLOSED
    if truth.exists():
        reference = read_volume(truth)[0]
        enclosed = float((reference > 0.3 * reference.max()).mean())
    rows = []
    for trial in results["trials"]:
        if trial["seed"] != 0:
            continue
        maps: list[tuple[str, Any]] = []
        for gradients in (g for method, g in wanted if method in ("*", trial["method"])):
            found = _map_at(trial, gradients)
            if found is None:
                maps.append(("", None))
                continue
            label = f"{found['image_gradients']:,} gradients"
            if found["mean_fsc"] is not None:
                label += f", FSC {found['mean_fsc']:.2f}"
            maps.append((label, read_volume(study / found["path"])[0]))
        if maps:
            rows.append((label_of(trial).replace(", ", ",\n"), maps))
    return rows, enclosed


def _map_at(trial: dict[str, Any], gradients: int | None) -> dict[str, Any] | None:
    """The first map after these image gradients, or the last one where they are None."""
    maps = [m for m in trial["maps"] if m["image_gradients"] > 0]
    if not maps:
        return None
    if gradients is None:
        found: dict[str, Any] = maps[-1]
        return found
    return next((m for m in maps if m["image_gradients"] >= gradients), None)
