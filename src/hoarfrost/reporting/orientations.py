"""The picture of the directions that a run's particles are seen from."""

import math
import textwrap
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from torch import Tensor

from hoarfrost.evaluation.views import Views, read_views
from hoarfrost.reporting.encode import save_png
from hoarfrost.reporting.panel import WIDTH_IN

ROWS = 60
COLUMNS = 120
MOST_VIEWS = 20_000
VIEWS_AT_ONCE = 1 << 20
# Evenly spread views within the smoothing kernel; with so many, chance shows little.
VIEWS_IN_KERNEL = 25.0
LEAST_WIDTH_RAD = math.radians(4)
SHOWN = (0.1, 10.0)
CAPTION_CHARACTERS = 135


def draw_orientations(run: str | Path, picture: str | Path) -> None:
    """Views of run/particles.star over the sphere, in Mollweide's projection of equal areas, as a PNG at `picture`."""
    views = read_views(run)
    figure = Figure(figsize=(9, 6), layout="constrained")
    panel = figure.add_subplot(projection="mollweide")
    mesh = _draw_density(panel, views)
    _label(figure.colorbar(mesh, ax=panel, orientation="horizontal", shrink=0.6, aspect=35, pad=0.04))
    figure.suptitle(title(views))
    figure.supxlabel(textwrap.fill(caption(views), CAPTION_CHARACTERS), fontsize=8.5)
    save_png(figure, Path(picture))


def orientations_figure(views: Views) -> Figure:
    """The same as a panel of a page, without title and caption."""
    figure = Figure(figsize=(WIDTH_IN, 3.3))
    panel = figure.add_axes((0.11, 0.28, 0.88, 0.7), projection="mollweide")
    mesh = _draw_density(panel, views)
    panel.set_xlabel("longitude", labelpad=2)
    panel.set_ylabel("latitude")
    _label(figure.colorbar(mesh, cax=figure.add_axes((0.22, 0.17, 0.66, 0.03)), orientation="horizontal"))
    return figure


def _draw_density(panel: Axes, views: Views) -> QuadMesh:
    longitude, latitude = np.linspace(-np.pi, np.pi, COLUMNS + 1), np.linspace(-np.pi / 2, np.pi / 2, ROWS + 1)
    centres = np.meshgrid((longitude[:-1] + longitude[1:]) / 2, (latitude[:-1] + latitude[1:]) / 2)
    density = view_density(views.views, _unit_vectors(*(torch.from_numpy(c).flatten() for c in centres)))
    shown = density.clamp(*SHOWN).reshape(ROWS, COLUMNS).numpy()
    mesh = panel.pcolormesh(longitude, latitude, shown, norm=LogNorm(*SHOWN), cmap="viridis", rasterized=True)
    if len(views.sparse):
        x, y, z = torch.cat([views.sparse, -views.sparse]).T.numpy()
        panel.plot(np.arctan2(y, x), np.arcsin(z), linestyle="none", marker="x", color="#ff5050", markersize=3.5)
    panel.grid(color="white", alpha=0.35, linewidth=0.6)
    panel.set_xticks(np.radians([-120, -60, 0, 60, 120]))
    panel.tick_params(axis="x", colors="white")
    panel.set_yticks(np.radians([-60, -30, 0, 30, 60]))
    return mesh


def _label(bar: Colorbar) -> None:
    bar.ax.xaxis.set_major_locator(FixedLocator([0.1, 0.3, 1, 3, 10]))
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    bar.ax.xaxis.set_minor_locator(NullLocator())
    bar.set_label("particles seen from a direction, relative to even views")


def title(views: Views) -> str:
    """What the picture shows, in words."""
    if views.even:
        return (
            f"Views are even enough: every direction of the map has at least {views.least:.0%} of the usual particles"
        )
    if not views.has_gaps:
        return f"Views are somewhat uneven: the map's direction seen least has {views.least:.0%} of the usual particles"
    x, y, z = (round(v, 2) + 0.0 for v in views.sparse_axis.tolist())  # never -0
    return (
        f"Views are uneven: {views.sparse_share:.0%} of the map's directions have less than a tenth of the usual "
        f"particles\n(red crosses, about the axis x, y, z = {x:.2f}, {y:.2f}, {z:.2f}): features along them are smeared"
    )


def view_density(views: Tensor, points: Tensor) -> Tensor:
    """Density of views (m, 3) at points of the sphere (p, 3), relative to even views: (p,) float64.

    The mean of von Mises–Fisher kernels, κ exp(κ (cos θ − 1)) / (2π (1 − exp(−2κ))), times 4π; wider for fewer views.
    """
    views = views[:: math.ceil(len(views) / MOST_VIEWS)]
    # A kernel of width w, in radians, holds about m w² / 2 of m even views.
    width = max(LEAST_WIDTH_RAD, math.sqrt(2 * VIEWS_IN_KERNEL / len(views)))
    kappa = 1 / width**2
    # Means in one tensor: between the large tables of the parts, small ones would fragment memory.
    kernel = torch.empty(len(points), dtype=torch.float64)
    for part in torch.split(torch.arange(len(points)), max(1, VIEWS_AT_ONCE // len(views))):
        kernel[part] = (points[part] @ views.T).sub_(1).mul_(kappa).exp_().mean(dim=1)
    return 2 * kappa / (1 - math.exp(-2 * kappa)) * kernel


def _unit_vectors(longitude: Tensor, latitude: Tensor) -> Tensor:
    return torch.stack([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()], dim=1)


def caption(views: Views) -> str:
    """What its axes are, in words."""
    text = (
        "Longitude is rlnAngleRot, latitude 90° − rlnAngleTilt; likely junk is left out, symmetry mates are counted. "
        "Opposite views are mirror images of each other and tell the same; each is shown where it is."
    )
    if len(views.sparse):
        text += " A view tells nothing of what lies along it, so crosses lie where views crowd."
    return text
