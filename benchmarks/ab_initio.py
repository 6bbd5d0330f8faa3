"""Reconstruct one data set from several seeds with default settings, and judge each map against a reference.

    python benchmarks/ab_initio.py particles.star reference.mrc --seeds 10 --output results.json

Every run is a fresh process, so its wall time includes start-up. Prints a line a seed and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import hoarfrost
from hoarfrost.io.fsc_star import read_fsc


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("particles", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="folder to keep the runs in")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            run = (options.keep or Path(temporary)) / f"seed{seed}"
            row = reconstruct(options.particles, options.reference, seed, run)
            rows.append(row)
            print(json.dumps(row), flush=True)
            write(options, rows)


def reconstruct(particles: Path, reference: Path, seed: int, run: Path) -> dict[str, float | int]:
    """One run and its figures."""
    command = [sys.executable, "-m", "hoarfrost", "reconstruct", str(particles), "-o", str(run), "--seed", str(seed)]
    started = time.monotonic()
    done = subprocess.run([*command, "--quiet", "--overwrite"], check=False, stdout=subprocess.DEVNULL)
    wall_seconds = time.monotonic() - started
    if not (run / "map.mrc").is_file():
        raise SystemExit(f"the run of seed {seed} ended with {done.returncode} and left no map")
    report = hoarfrost.evaluate(run / "map.mrc", reference)
    claimed = read_fsc(run / "fsc.star").resolution_A
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    last = [event for event in events if event["nll"] is not None][-1]
    return {
        "seed": seed,
        "wall_seconds": round(wall_seconds, 1),
        "exit_code": done.returncode,
        "fsc_05_A": round(report.resolution_05_A, 2),
        "claimed_A": round(claimed, 2),
        "correlation": round(report.correlation, 4),
        "mirrored": report.mirrored,
        "iterations": last["iteration"],
        "held_out_nll": round(last["nll"], 3),
        "held_out_nll_standard_error": round(last["nll_standard_error"], 3),
    }


def write(options: argparse.Namespace, rows: list[dict[str, float | int]]) -> None:
    """The rows so far, with medians and what they were measured on."""
    summary = {
        "particles": options.particles.parent.name,
        "reference": options.reference.name,
        "median_wall_seconds": statistics.median(row["wall_seconds"] for row in rows),
        "worst_wall_seconds": max(row["wall_seconds"] for row in rows),
        "median_fsc_05_A": statistics.median(row["fsc_05_A"] for row in rows),
        "worst_fsc_05_A": max(row["fsc_05_A"] for row in rows),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "hoarfrost": hoarfrost.__version__,
        "torch": torch.__version__,
        "runs": rows,
    }
    options.output.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
