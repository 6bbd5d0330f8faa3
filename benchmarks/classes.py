"""Sort particles of two structures into two classes, from several seeds, and count those in the right one.

    python benchmarks/classes.py shared/data --seeds 5 --output results.json

GroEL–GroES (C7) and β-galactosidase (D2), half and half: 2,000 particles of 64 pixels at SNR 0.05, real CTFs, offsets.
To save time each run has one random start and stops at 20 Å. Prints a line a run and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import hoarfrost
from hoarfrost.io.star import read_star
from hoarfrost.io.star_columns import float_column
from hoarfrost.io.star_optics import particle_table

BOX, LENGTH_A, N, SNR, SHIFT_SIGMA_A, MAX_RESOLUTION_A = 64, 320.0, 2000, 0.05, 6.0, 20.0
STRUCTURES = ("models/1aon_GroEL-GroES_C7.pdb.gz", "models/6cvm_betagal_D2.pdb.gz")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    with TemporaryDirectory() as temporary:
        data = hoarfrost.simulate(
            [options.data / path for path in STRUCTURES],
            Path(temporary) / "data",
            n_particles=N,
            snr=SNR,
            box=BOX,
            pixel_size_A=LENGTH_A / BOX,
            ctf_from=options.data / "ctf/empiar10028.star",
            shift_sigma_A=SHIFT_SIGMA_A,
            seed=1,
        )
        truth = column(data.true_poses_path, "rlnClassNumber")
        for seed in range(options.seeds):
            output = Path(temporary) / f"seed{seed}"
            command = [sys.executable, "-m", "hoarfrost", "reconstruct", str(data.particles_path), "-o", str(output)]
            command += ["--classes", "2", "--starts", "1", "--max-resolution", str(MAX_RESOLUTION_A), "--quiet"]
            started = time.monotonic()
            subprocess.run([*command, "--seed", str(seed)], check=True, stdout=subprocess.DEVNULL)
            seconds = time.monotonic() - started
            found = column(output / "particles.star", "rlnClassNumber")
            right = max(np.mean(found == truth), np.mean(found == 3 - truth))
            maps = [
                [hoarfrost.evaluate(output / f"class00{c}.mrc", path).correlation for path in data.truth_paths]
                for c in (1, 2)
            ]
            rows.append(
                {
                    "seed": seed,
                    "in_the_right_class": round(float(right), 4),
                    "correlations": [[round(value, 3) for value in row] for row in maps],
                    "wall_seconds": round(seconds, 1),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
            write(options.output, rows)


def column(path: Path, name: str) -> np.ndarray:
    """A column of a particle STAR file."""
    return float_column(path, particle_table(read_star(path)), name)


def write(output: Path, rows: list[dict[str, object]]) -> None:
    """The rows so far, and what they were measured on."""
    summary = {
        "structures": [Path(path).name for path in STRUCTURES],
        "particles": N,
        "box": BOX,
        "snr": SNR,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "hoarfrost": hoarfrost.__version__,
        "runs": rows,
    }
    output.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
