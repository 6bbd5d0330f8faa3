"""Reconstruct particles that are simulated to be as difficult as real ones, and judge maps by those of the true poses.

    python benchmarks/difficult.py shared/data --seeds 3 --output results.json

Each set has real CTFs, noise with the spectrum of a real stack, SNR 0.03, signal that varies by 20 %, offsets of 5 % of
the box (root mean square), preferred views, and 20 % junk, half of it noise and half other objects. The box has 128
pixels: at 64 and the same SNR images hold a quarter of the signal, 1 to 5 nats at the first band limit under the
true map, of the 12 that a pose takes to know. The map of the true poses is solved for as a run's last map is, from the
particles that are no junk. Poses of particles that were not taken for junk are right if they are within 15° of the true
ones, or of others that show the structure alike. Every run is a fresh process with no option but the seed. Prints a
line a run and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import hoarfrost
from hoarfrost.evaluation.poses import pose_errors
from hoarfrost.io.fsc_star import read_fsc
from hoarfrost.io.mrc import read_volume
from hoarfrost.io.star import read_star
from hoarfrost.io.star_columns import float_column
from hoarfrost.io.star_optics import particle_table
from hoarfrost.maths.fourier import FourierDisc, fourier_resize, radius_grid
from hoarfrost.maths.fsc import fourier_shell_correlation, resolution_A
from hoarfrost.model.all_poses.band import box_of
from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.few_poses.statistics import LocalStatistics
from hoarfrost.model.quadratic import Quadratic, mean_of
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.estimate.m_step import MStep, wiener_ridge
from hoarfrost.reconstruction.run import open_source
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.settings.plan import resolve
from hoarfrost.simulation.simulate import SimulatedData
from hoarfrost.symmetry.point_group import PointGroup

BOX, N, BATCH = 128, 2000, 200
SNR, SCALE_SIGMA, SHIFT_SHARE, KAPPA, JUNK = 0.03, 0.2, 0.05, 1.0, 0.2
RIGHT_DEG, SURE = 15.0, 0.9


@dataclass(frozen=True)
class Structure:
    """A model in the data folder, the length of the box to simulate it in, in Å, and its point group."""

    path: str
    length_A: float
    symmetry: str


STRUCTURES = {
    "groes": Structure("models/1aon_GroEL-GroES_C7.pdb.gz", 288.0, "C7"),
    "betagal": Structure("models/6cvm_betagal_D2.pdb.gz", 288.0, "D2"),
    "polymerase": Structure("models/1wcm_RNAPolII_C1.pdb.gz", 256.0, "C1"),
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(STRUCTURES), choices=list(STRUCTURES))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="folder to keep data and runs in")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    with TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        for name in options.only:
            data = simulate(name, options.data, folder / name)
            of_true_poses_A = true_pose_resolution_A(data)
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                row = {"structure": name, **run(data, seed, folder / f"{name}-seed{seed}", of_true_poses_A, name)}
                rows.append(row)
                print(json.dumps(row), flush=True)
                write(options.output, rows)


def simulate(name: str, data: Path, folder: Path) -> SimulatedData:
    """The particles of one structure."""
    structure = STRUCTURES[name]
    return hoarfrost.simulate(
        data / structure.path,
        folder,
        n_particles=N,
        snr=SNR,
        box=BOX,
        pixel_size_A=structure.length_A / BOX,
        ctf_from=data / "ctf/empiar10028.star",
        noise_from=data / "bgal-empiar10017/particles.star",
        shift_sigma_A=SHIFT_SHARE * structure.length_A / math.sqrt(2),
        scale_sigma=SCALE_SIGMA,
        preferred=KAPPA,
        junk=JUNK,
        seed=1,
        overwrite=True,
    )


def true_pose_resolution_A(data: SimulatedData) -> float:
    """FSC 0.5 with the truth of the map that the true poses give, in Å."""
    stack = ParticleStack.open(data.true_poses_path)
    assert stack.poses is not None
    settings = resolve(stack, Options(), output=Path("run"))
    r_max = settings.refined_r_max[-1]
    disc, box = FourierDisc(data.box, r_max), box_of(r_max)
    source = open_source(stack, settings)
    empty = torch.zeros(box, box, box)
    model = LocalModel(empty, disc, PosePrior(1.0, 3.0))
    rotations, shifts_px = stack.poses[0], stack.poses[1] / data.pixel_size_A
    particles = torch.from_numpy(column(data.true_poses_path, "hoarfrostTrueJunk") == 0).nonzero().squeeze(1)
    parts: list[Quadratic] = []
    for half in (particles[::2], particles[1::2]):
        statistics = LocalStatistics(box, data.box)
        for batch in torch.split(half, BATCH):
            image = torch.arange(len(batch))
            draws = Draws(image, rotations[batch], shifts_px[batch], torch.ones(len(batch)))
            statistics.add(model, source.images(batch, disc), draws)
        parts.append(statistics.quadratic(len(half)))
    inside = radius_grid(box, 3) <= settings.diameter_A / (data.box * data.pixel_size_A) * box / 2
    support = inside.to(torch.float32)
    halves = [MStep(support, positive=False)(part, empty) for part in parts]
    ridge = wiener_ridge(parts, fourier_shell_correlation(*halves), support)
    solve = MStep(support, positive=False, shell_ridge=ridge)
    found = solve(mean_of(parts), (halves[0] + halves[1]) / 2)
    truth = torch.from_numpy(read_volume(data.truth_path)[0])
    fsc = fourier_shell_correlation(fourier_resize(found, data.box, r_max), truth)
    return resolution_A(fsc, data.box, data.pixel_size_A, 0.5)


def column(star: Path, name: str) -> np.ndarray:
    """A column of the particles of a STAR file."""
    return float_column(star, particle_table(read_star(star)), name)


def run(data: SimulatedData, seed: int, output: Path, of_true_poses_A: float, name: str) -> dict[str, object]:
    """One run and its figures."""
    command = [sys.executable, "-m", "hoarfrost", "reconstruct", str(data.particles_path), "-o", str(output)]
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--seed", str(seed), "--quiet", "--overwrite"], check=False, capture_output=True, text=True
    )
    seconds = time.monotonic() - started
    if not (output / "map.mrc").is_file():
        raise SystemExit(done.stderr)
    return {
        "seed": seed,
        **judged(data, output, of_true_poses_A, name),
        "exit_code": done.returncode,
        "wall_seconds": round(seconds, 1),
    }


def judged(data: SimulatedData, output: Path, of_true_poses_A: float, name: str) -> dict[str, object]:
    """What a run's folder says, against the truth."""
    report = hoarfrost.evaluate(output / "map.mrc", data.truth_path)
    claimed = read_fsc(output / "fsc.star").resolution_A
    junk = column(output / "particles.star", "hoarfrostJunkProbability")
    is_junk = column(data.true_poses_path, "hoarfrostTrueJunk") == 1
    seen = torch.from_numpy(~is_junk & (junk < 0.5))
    true, found = ParticleStack.open(data.true_poses_path).poses, ParticleStack.open(output / "particles.star").poses
    assert true is not None
    assert found is not None
    # The truth has its axes of symmetry where its group has them; the map has them anywhere.
    group = PointGroup(STRUCTURES[name].symmetry)
    errors = pose_errors(true[0][seen], true[1][seen], found[0][seen], found[1][seen], group)
    probability = column(output / "particles.star", "rlnMaxValueProbDistribution")[seen]
    return {
        "fsc_05_A": round(report.resolution_05_A, 2),
        "true_poses_fsc_05_A": round(of_true_poses_A, 2),
        "ratio": round(report.resolution_05_A / of_true_poses_A, 3),
        "claimed_A": round(claimed, 2),
        "correlation": round(report.correlation, 3),
        "junk_found": round(float(np.mean(junk[is_junk] > 0.5)), 3),
        "particles_taken_for_junk": round(float(np.mean(junk[~is_junk] > 0.5)), 3),
        "poses_right": round(errors.fraction_within(RIGHT_DEG), 3),
        "mean_probability": round(float(np.mean(probability)), 3),
        "sure_poses_right": round(float((errors.angles_deg[probability > SURE] <= RIGHT_DEG).double().mean()), 3),
    }


def write(output: Path, rows: list[dict[str, object]]) -> None:
    """The rows so far, and what they were measured on."""
    summary = {
        "particles": N,
        "box": BOX,
        "snr": SNR,
        "scale_sigma": SCALE_SIGMA,
        "kappa": KAPPA,
        "junk": JUNK,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "hoarfrost": hoarfrost.__version__,
        "torch": torch.__version__,
        "runs": rows,
    }
    output.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
