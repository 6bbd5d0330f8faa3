"""Pictures of a finished run: slices of the map, and particles beside the projections that match them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from hoarfrost.fourier import FourierDisc
from hoarfrost.io.mrc import read_volume
from hoarfrost.model.ctf import evaluate_ctf
from hoarfrost.model.spectrum import SpectrumSampler
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.report.png import save_png

Draw = Callable[[str | Path, str | Path], None]
"""Draws a run folder into a PNG file."""

N_MATCHES = 8
# Fourier pixels of the images. At the finest limits particles show nothing but noise.
MATCHES_R_MAX = 10.0
AXES = "zyx"


def draw_slices(run: str | Path, picture: str | Path) -> None:
    """Three central slices of run/map.mrc above its projections along the same axes, as a PNG at `picture`."""
    volume, pixel_size_A = read_volume(Path(run) / "map.mrc")
    half_A = volume.shape[0] * pixel_size_A / 2
    figure = Figure(figsize=(9, 6.6), layout="constrained")
    grid = figure.subplots(2, 3)
    figure.suptitle("Central slices (top) and projections (bottom); protein is bright, axes in Å")
    low, high = np.percentile(volume, [0.5, 99.8])
    for column, axis in enumerate(AXES):
        middle = np.take(volume, volume.shape[column] // 2, axis=column)
        across = [a for a in AXES if a != axis]
        for row, image in enumerate((middle, volume.sum(axis=column))):
            panel = grid[row][column]
            limits = {"vmin": low, "vmax": high} if row == 0 else {}
            panel.imshow(image, cmap="gray", origin="lower", extent=(-half_A, half_A, -half_A, half_A), **limits)
            panel.set_title(f"{'slice at' if row == 0 else 'projection along'} {axis}{' = 0' if row == 0 else ''}")
            panel.set_ylabel(across[0])
            panel.set_xlabel(across[1])
    save_png(figure, Path(picture))


def draw_matches(run: str | Path, picture: str | Path) -> None:
    """Eight particles of run/particles.star above the projections of the map at their poses, as a PNG at `picture`.

    Shown is the particle of median pose probability in each eighth of the stack, so neither the best nor the worst,
    inverted if the run inverted them; the projections carry the particle's CTF and shift. Both are low-passed to the
    map's band, or to where an eye still finds a particle in its noise.
    """
    run = Path(run)
    volume, _ = read_volume(run / "map.mrc")
    stack = ParticleStack.open(run / "particles.star")
    assert stack.poses is not None
    probability = np.array(stack.table.star.tables["particles"].columns["rlnMaxValueProbDistribution"], dtype=float)
    parts = np.array_split(np.arange(stack.n_images), min(N_MATCHES, stack.n_images))
    chosen = torch.tensor([part[np.argsort(probability[part])[len(part) // 2]] for part in parts])
    disc = FourierDisc(stack.box, min(_band_limit(torch.from_numpy(volume)), MATCHES_R_MAX))
    particles = disc.unpack(disc.pack(stack.read(chosen))) * _sign(run)
    projections = disc.unpack(_project(torch.from_numpy(volume), stack, chosen, disc))
    limit_A = stack.box * stack.pixel_size_A / disc.r_max
    figure = Figure(figsize=(1.6 * len(parts), 4.1), layout="constrained")
    grid = figure.subplots(2, len(parts), squeeze=False)
    figure.suptitle(f"Particles (top) and the map's projections at their poses, with CTF (bottom), to {limit_A:.0f} Å")
    for column, index in enumerate(chosen.tolist()):
        grid[0][column].set_title(f"particle {index + 1}\np = {probability[index]:.2f}", fontsize=9)
        for row, images in enumerate((particles, projections)):
            grid[row][column].imshow(images[column].numpy(), cmap="gray", origin="lower")
            grid[row][column].set_axis_off()
    save_png(figure, Path(picture))


def _sign(run: Path) -> int:
    """What the run multiplied its images by."""
    settings = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    return -1 if settings["contrast"] == "black" else 1


def _band_limit(volume: Tensor) -> float:
    """Largest |k| in Fourier pixels at which the map has power worth the name."""
    n = volume.shape[-1]
    disc = FourierDisc(n, n / 2 - 0.51)
    power = sum(disc.pack(volume.sum(dim=axis)).abs().square() for axis in range(3))
    assert isinstance(power, Tensor)
    return float(disc.radii[power > 1e-6 * power.max()].max())


def _project(volume: Tensor, stack: ParticleStack, chosen: Tensor, disc: FourierDisc) -> Tensor:
    """S_t C P_R V of the chosen particles: complex (b, K)."""
    assert stack.poses is not None
    rotations, shifts_A = (part[chosen] for part in stack.poses)
    plane = disc.coordinates.to(torch.float64)
    points = torch.einsum("kc,ncx->nkx", plane, rotations[:, :2, :]).reshape(-1, 3)
    slices = SpectrumSampler(volume.unsqueeze(0))(points).reshape(len(chosen), disc.size) / disc.box
    frequencies_per_A = plane / (disc.box * stack.pixel_size_A)
    angle = -2 * torch.pi * (shifts_A @ frequencies_per_A.T)
    return slices * evaluate_ctf(stack.ctf[chosen], frequencies_per_A) * torch.polar(torch.ones_like(angle), angle)
