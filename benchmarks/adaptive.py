"""The pruned sum over poses against the exact one: error against margin, time, and how both grow with the band limit.

    python benchmarks/adaptive.py --particles particles.star --map truth.mrc -o benchmarks/results/adaptive.json

Without particles only the drawn dumbbell of the published study is measured (128 px, SNR 0.05, no shifts). Particles
are of the hard kind, with shifts; the map is on their grid. The file is written after each part.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from hoarfrost.benchmark.adaptive_timing import error_against_margin, time_adaptive
from hoarfrost.benchmark.presets import PRESETS
from hoarfrost.fourier import FourierDisc, fourier_resize
from hoarfrost.geometry import random_rotations
from hoarfrost.io.atomic import write_text_atomically
from hoarfrost.io.mrc import read_volume
from hoarfrost.model.band import BandModel
from hoarfrost.model.likelihood import PoseModel, WhitenedImages, whiten
from hoarfrost.model.modes import Modes
from hoarfrost.model.quadrature import PosePrior, make_orientation_quadrature, make_shift_quadrature
from hoarfrost.model.spectrum import SpectrumSampler
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruct.local_e_step import Effort, LocalEStep
from hoarfrost.reconstruct.run import open_source
from hoarfrost.reconstruct.settings import Options, resolve
from hoarfrost.seeds import named_generator
from hoarfrost.simulate.dumbbell import make_dumbbell
from hoarfrost.simulate.packed import simulate_packed
from hoarfrost.simulate.parameters import Optics, draw_ctfs

PUBLISHED_R_MAX = 10.24
PUBLISHED_IMAGES = 46_105
MARGINS = (8.0, 10.0, 13.0, 16.0, 20.0)
SYNTHETIC_R_MAX = (6.0, 8.0, 10.24, 13.0, 16.0, 20.0)
PARTICLE_R_MAX = (6.0, 8.0, 10.0)
REFINED_R_MAX = (8.0, 12.0, 16.0, 22.0, 28.0)
SEARCHED_SHARE = 0.25


def synthetic(r_max: float, n_images: int) -> tuple[WhitenedImages, torch.Tensor, PoseModel]:
    """Images of the dumbbell, slices of its map, and the quadrature, at one band limit."""
    preset = PRESETS["paper-synthetic"]
    disc = FourierDisc(preset.box, r_max)
    volume = make_dumbbell(preset.box)
    particles = simulate_packed(volume, preset.pixel_size_A, disc, draw_ctfs(n_images, Optics(), 0), preset.snr, 0)
    images = whiten(particles.images, particles.ctf, torch.ones(disc.size, dtype=torch.float64), disc)
    turn = random_rotations(1, named_generator(0, "adaptive benchmark"))[0]
    return images, *sampled_slices(volume * particles.scale, disc, turn, PosePrior(0.0, 0.0))


def sampled_slices(
    volume: torch.Tensor, disc: FourierDisc, turn: torch.Tensor, prior: PosePrior
) -> tuple[torch.Tensor, PoseModel]:
    """Slices (n_base, K) of a volume in the images' box, without the sparse matrix, which takes 13 GB at r_max 20."""
    orientations = make_orientation_quadrature(disc.r_max).rotated(turn)
    shifts = make_shift_quadrature(disc.r_max, disc.box, prior.shift_sigma_px, prior.shift_extent_px)
    small = fourier_resize(volume.to(torch.float64), 2 * math.floor(disc.r_max) + 6, disc.r_max).to(torch.float32)
    sampler = SpectrumSampler(small.unsqueeze(0), width=3)
    plane = disc.coordinates.to(torch.float64)
    parts = [
        sampler(torch.einsum("kc,ncx->nkx", plane, chunk[:, :2]).reshape(-1, 3)).reshape(-1, disc.size) / disc.box
        for chunk in orientations.base_rotations.split(2000)
    ]
    return torch.cat(parts), PoseModel(disc, orientations, shifts)


def exponent(r_max: list[float], milliseconds: list[float]) -> float:
    """The slope of log time against log r_max, by least squares."""
    x = torch.tensor(r_max, dtype=torch.float64).log()
    y = torch.tensor(milliseconds, dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / x.square().sum())


def growth(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Exponents of CPU time, exact and pruned."""
    bands = [row["r_max"] for row in rows]
    return {way: exponent(bands, [row["cpu_ms"][n] for row in rows]) for n, way in enumerate(("exact", "pruned"))}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=Path)
    parser.add_argument("--map", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1000, help="of the published size")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {options.threads} threads, torch {torch.__version__}",
        "load_before": os.getloadavg()[0],
    }

    def done(name: str, found: Any) -> None:
        report[name] = found
        write_text_atomically(options.output, json.dumps(report, indent=1) + "\n")
        print(name, json.dumps(found), flush=True)

    images, slices, poses = synthetic(PUBLISHED_R_MAX, options.images)
    timing = dataclasses.asdict(time_adaptive(images, slices, poses))
    timing["seconds_an_epoch"] = [PUBLISHED_IMAGES * t / 1e3 for t in timing["wall_ms"]]
    timing["cpu_seconds_an_epoch"] = [PUBLISHED_IMAGES * t / 1e3 for t in timing["cpu_ms"]]
    done("published size", timing)
    for bands in ((6.4,), (4.096, 6.4)):
        done(f"margins, {bands}", error_against_margin(images, slices, poses, bands, MARGINS))
    rows = []
    for r_max in SYNTHETIC_R_MAX:
        images, slices, poses = synthetic(r_max, max(20, round(200 * (6 / r_max) ** 2)))
        rows.append({"r_max": r_max} | dataclasses.asdict(time_adaptive(images, slices, poses, repeats=1)))
    done("growth, no shifts", rows)
    done("exponents, no shifts", growth(rows))
    if options.particles is None:
        return

    stack = ParticleStack.open(options.particles)
    settings = resolve(stack, Options(), output=Path(), datadir=None, version="")
    source = open_source(stack, settings)
    pixel_A = settings.pixel_size_A
    prior = PosePrior(settings.shift_sigma_A / pixel_A, settings.shift_extent_A / pixel_A)
    turn = random_rotations(1, named_generator(0, "adaptive benchmark"))[0]
    volume = torch.from_numpy(read_volume(options.map)[0]).to(torch.float64)
    rows = []
    for r_max in PARTICLE_R_MAX:
        disc = FourierDisc(settings.box, r_max)
        images = source.images(torch.arange(12), disc)
        slices, poses = sampled_slices(volume, disc, turn, prior)
        rows.append({"r_max": r_max} | dataclasses.asdict(time_adaptive(images, slices, poses, repeats=1)))
        done("growth, particles with shifts", rows)
    done("exponents, particles with shifts", growth(rows))

    coarse = BandModel(settings.box, 6.0, prior, turn)
    rows = []
    for r_max in REFINED_R_MAX:
        if r_max >= settings.box / 2 - 1:
            continue
        disc = FourierDisc(settings.box, r_max)
        small = fourier_resize(volume, 2 * math.floor(r_max) + 6, r_max).to(torch.float32)
        generator = named_generator(0, "adaptive benchmark")
        e_step = LocalEStep(small, disc, coarse, prior, Effort(), generator)
        images = source.images(torch.arange(40), disc)
        known = e_step(images, Modes.none(len(images), 4), torch.ones(len(images), dtype=torch.bool)).modes
        search = torch.rand(len(images), generator=generator) < SEARCHED_SHARE
        wall, cpu = time.perf_counter(), time.process_time()
        e_step(images, known, search)
        each = 1e3 / len(images)
        wall, cpu = each * (time.perf_counter() - wall), each * (time.process_time() - cpu)
        rows.append({"r_max": r_max, "wall_ms": wall, "cpu_ms": cpu})
    done("refinement's E-step", rows)
    done("exponent, refinement", exponent([r["r_max"] for r in rows], [r["cpu_ms"] for r in rows]))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
