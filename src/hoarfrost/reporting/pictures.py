"""Pictures of a run's map: its slices, and particles beside the projections that match them."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hoarfrost.io.mrc import read_volume
from hoarfrost.io.star_columns import float_column
from hoarfrost.io.star_optics import particle_table
from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.model.ctf import evaluate_ctf
from hoarfrost.nufft.sampler import SpectrumSampler
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reporting.encode import save_png
from hoarfrost.reporting.panel import WIDTH_IN

Array = npt.NDArray[np.floating[Any]]

# Fourier pixels of the images. At the finest limits particles show nothing but noise.
MATCHES_R_MAX = 10.0
AXES = "zyx"


def draw_slices(run: str | Path, picture: str | Path) -> None:
    """Three central slices of run/map.mrc above its projections along the same axes, as a PNG at `picture`."""
    volume, pixel_size_A = read_volume(Path(run) / "map.mrc")
    figure = Figure(figsize=(9, 6.6))
    figure.subplots_adjust(left=0.08, right=0.98, top=0.89, bottom=0.08, hspace=0.3, wspace=0.35)
    _draw_slices(figure.subplots(2, 3), volume, pixel_size_A)
    figure.suptitle("Central slices (top) and projections (bottom); protein is bright, axes in Å")
    save_png(figure, Path(picture))


def slices_figure(volume: Array, pixel_size_A: float) -> Figure:
    """Three central slices of a map (n, n, n), left, beside its projections along the same axes."""
    figure = Figure(figsize=(WIDTH_IN, 6.9))
    figure.subplots_adjust(left=0.12, right=0.99, top=0.965, bottom=0.07, hspace=0.48, wspace=0.32)
    # The browser smoothes what is embedded as it is.
    _draw_slices(figure.subplots(3, 2).T, volume, pixel_size_A, unit=" (Å)", interpolation="none")
    return figure


def _draw_slices(
    grid: npt.NDArray[Any], volume: Array, pixel_size_A: float, unit: str = "", interpolation: str = "bilinear"
) -> None:
    """Into panels (2, 3): slices, then projections."""
    half_A = volume.shape[0] * pixel_size_A / 2
    low, high = np.percentile(volume, [0.5, 99.8])
    for column, axis in enumerate(AXES):
        middle = np.take(volume, volume.shape[column] // 2, axis=column)
        across = [a for a in AXES if a != axis]
        for row, image in enumerate((middle, volume.sum(axis=column))):
            panel: Axes = grid[row][column]
            limits = {"vmin": low, "vmax": high} if row == 0 else {}
            panel.imshow(
                image,
                cmap="gray",
                origin="lower",
                extent=(-half_A, half_A, -half_A, half_A),
                interpolation=interpolation,
                **limits,
            )
            panel.set_title(f"{'slice at' if row == 0 else 'projection along'} {axis}{' = 0' if row == 0 else ''}")
            panel.set_ylabel(f"{across[0]}{unit}")
            panel.set_xlabel(f"{across[1]}{unit}")


@dataclass(frozen=True)
class Matched:
    """A few particles beside the map's projections at their poses, `particles` and `projections` (m, n, n), y up.

    Both are low-passed to `limit_A`. `numbers` (m,) are the particles' rows from 1, `probability` (m,) of the poses.
    """

    particles: Array
    projections: Array
    numbers: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]
    limit_A: float


def read_matched(folder: str | Path, sign: int, r_max: float | None = None) -> Matched:
    """The particles of matches.star in the folder of a map, times `sign`, beside projections of map.mrc.

    Both are low-passed to the map's band, `r_max` Fourier pixels where that is known, or to where an eye still finds a
    particle in its noise; the projections carry the particle's CTF and shift.
    """
    folder = Path(folder)
    volume, _ = read_volume(folder / "map.mrc")
    stack = ParticleStack.open(folder / "matches.star", folder)
    table = particle_table(stack.table.star)
    path = stack.table.star.path
    r_max = _band_limit(torch.from_numpy(volume)) if r_max is None else r_max
    disc = FourierDisc(stack.box, min(r_max, MATCHES_R_MAX))
    return Matched(
        (disc.unpack(disc.pack(stack.read(torch.arange(stack.n_images)))) * sign).numpy(),
        disc.unpack(_project(torch.from_numpy(volume), stack, disc)).numpy(),
        float_column(path, table, "hoarfrostParticle").astype(np.int64),
        float_column(path, table, "rlnMaxValueProbDistribution"),
        stack.box * stack.pixel_size_A / disc.r_max,
    )


def draw_matches(run: str | Path, picture: str | Path) -> None:
    """Eight particles of run/matches.star above the projections of the map at their poses, as a PNG at `picture`."""
    found = read_matched(run, sign_of(tomllib.loads((Path(run) / "config.toml").read_text(encoding="utf-8"))))
    figure = Figure(figsize=(1.6 * len(found.numbers), 4.1))
    figure.subplots_adjust(left=0.01, right=0.99, top=0.8, bottom=0.01, hspace=0.03, wspace=0.05)
    grid = figure.subplots(2, len(found.numbers), squeeze=False)
    figure.suptitle(
        f"Particles (top) and the map's projections at their poses, with CTF (bottom), to {found.limit_A:.0f} Å"
    )
    for column, (number, probability) in enumerate(zip(found.numbers, found.probability, strict=True)):
        grid[0][column].set_title(f"particle {number}\np = {probability:.2f}", fontsize=9)
        for row, images in enumerate((found.particles, found.projections)):
            grid[row][column].imshow(images[column], cmap="gray", origin="lower")
            grid[row][column].set_axis_off()
    save_png(figure, Path(picture))


def sign_of(settings: dict[str, Any]) -> int:
    """What the run with these settings multiplied its images by."""
    return -1 if settings["contrast"] == "black" else 1


def _band_limit(volume: Tensor) -> float:
    """Largest |k| in Fourier pixels at which the map has power worth the name."""
    n = volume.shape[-1]
    disc = FourierDisc(n, n / 2 - 0.51)
    power = sum(disc.pack(volume.sum(dim=axis)).abs().square() for axis in range(3))
    assert isinstance(power, Tensor)
    return float(disc.radii[power > 1e-6 * power.max()].max())


def _project(volume: Tensor, stack: ParticleStack, disc: FourierDisc) -> Tensor:
    """S_t C P_R V of all particles of a stack: complex (n, K)."""
    assert stack.poses is not None
    rotations, shifts_A = stack.poses
    plane = disc.coordinates.to(torch.float64)
    points = torch.einsum("kc,ncx->nkx", plane, rotations[:, :2, :]).reshape(-1, 3)
    slices = SpectrumSampler(volume.unsqueeze(0))(points).reshape(stack.n_images, disc.size) / disc.box
    frequencies_per_A = plane / (disc.box * stack.pixel_size_A)
    angle = -2 * torch.pi * (shifts_A @ frequencies_per_A.T)
    return slices * evaluate_ctf(stack.ctf, frequencies_per_A) * torch.polar(torch.ones_like(angle), angle)
