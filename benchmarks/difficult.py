r"""Reconstruct particles that are simulated to be hard, and say which maps are right, and which are wrong and not told.

    python benchmarks/difficult.py shared/data --only groes betagal polymerase --snr better --seeds 3
    python benchmarks/difficult.py shared/data --label 1a2b3c4 --seeds 10 --keep runs/ --most-minutes 60
    python benchmarks/difficult.py --table

`hard_sets` has the sets, `judgement` what is looked at. Every run is a fresh process on one thread, with no option but
the seed and the symmetry that the set tells. The first seed of all sets comes before the second of any. After each run
its row goes into the output, where rows of other versions stay; a run that is there for the version is not repeated
unless --again. --label says which version it is, the commit as a rule, and --source runs another one than is
installed, from the source tree of a checkout; particles and judgement are always of this one.

For comparison, RELION's own first model of the same particles (3.1.3, from the folder of particles.star):

    relion_refine --i particles.star --o relion/run --sgd --denovo_3dref --ctf --K 1 --sym C1 --flatten_solvent \
        --zero_mask --particle_diameter D --oversampling 1 --healpix_order 1 --offset_range 6 --offset_step 2 --j 1
    hoarfrost evaluate relion/run_it300_class001.mrc truth.mrc
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import hoarfrost
from hard_rows import key, read_rows, table, with_row, write_rows
from hard_sets import SETS, HardSet, Particles, simulate
from hoarfrost.errors import HoarfrostError
from hoarfrost.io.atomic import write_text_atomically
from hoarfrost.io.mrc import write_volume
from judgement import Row, crossing_A, judged, verdict
from true_poses import true_pose_fsc, true_pose_map

RESULTS = Path(__file__).parent / "results" / "difficult.json"
SNRS = ("better", "low")


def main() -> None:
    """Run the benchmark, or show its table."""
    options = asked()
    try:
        if options.table:
            rows = read_rows(options.output)
            print(table([row for row in rows if row["set"] in options.only]))
        else:
            with TemporaryDirectory() as temporary:
                run_all(options, options.keep or Path(temporary))
    except HoarfrostError as error:
        raise SystemExit(f"difficult.py: {error}") from None


def asked() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder with ctf, models and maps")
    parser.add_argument("--only", nargs="+", default=list(SETS), choices=list(SETS), metavar="SET")
    parser.add_argument("--snr", choices=[*SNRS, "both"], default="both")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder to keep particles and runs in, and to find particles in")
    parser.add_argument("--label", default=hoarfrost.__version__, help="version of the program in the rows")
    parser.add_argument("--source", type=Path, help="source tree of another version, to run in place of this one")
    parser.add_argument("--most-minutes", type=float, default=float("inf"), help="after which no run begins")
    parser.add_argument("--again", action="store_true", help="repeat runs that are there already")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table of the output, and run nothing")
    options = parser.parse_args()
    if options.data is None and not options.table:
        parser.error("give the folder of data, or --table")
    if options.data is not None and not options.data.is_dir():
        parser.error(f"{options.data} is no folder")
    if options.source is not None and not (options.source / "hoarfrost" / "__main__.py").is_file():
        parser.error(f"{options.source} holds no package hoarfrost")
    return options


def run_all(options: argparse.Namespace, folder: Path) -> None:
    """Run what is asked for and is not there yet, seed by seed."""
    torch.set_num_threads(1)
    ends = time.monotonic() + 60 * options.most_minutes
    rows = [] if options.again else read_rows(options.output)
    done = {key(row) for row in rows}
    snrs = SNRS if options.snr == "both" else (options.snr,)
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in options.only:
            for snr in snrs:
                which: Row = {"set": name, "snr": snr, "seed": seed, "version": options.label}
                if key(which) in done:
                    continue
                if time.monotonic() > ends:
                    return
                particles, of_true_poses_A = prepared(name, snr, options.data, folder)
                output = folder / "runs" / options.label / f"{name}-{snr}-seed{seed}"
                row = {**which, "true_poses_fsc_05_A": round(of_true_poses_A, 2)}
                row |= run(particles, seed, output, options.source)
                row["verdict"] = verdict(row)
                print(json.dumps(row, ensure_ascii=False), flush=True)
                # Another process may have added rows meanwhile.
                write_rows(options.output, with_row(read_rows(options.output), row), about())


def prepared(name: str, snr: str, data: Path, folder: Path) -> tuple[Particles, float]:
    """The particles of a set, and FSC 0.5 of the map of their true poses in Å: found in the folder, or made."""
    hard_set, own = SETS[name], folder / "particles" / f"{name}-{snr}"
    told = own / "set.json"
    wanted = json.loads(json.dumps({**hard_set.parameters, "snrs": {snr: hard_set.snrs[snr]}}))
    if told.is_file():
        there = json.loads(told.read_text())
        if there["parameters"] == wanted:
            return Particles(hard_set, own), float(there["true_poses_fsc_05_A"])
    particles = simulate(hard_set, snr, data, own)
    found = true_pose_map(particles)
    of_true_poses_A = crossing_A(true_pose_fsc(particles, found), hard_set)
    write_volume(own / "true_poses.mrc", found.numpy(), hard_set.pixel_size_A)
    written = {"parameters": wanted, "true_poses_fsc_05_A": of_true_poses_A}
    write_text_atomically(told, json.dumps(written, indent=1, ensure_ascii=False) + "\n")
    return particles, of_true_poses_A


def run(particles: Particles, seed: int, output: Path, source: Path | None) -> Row:
    """One run and its figures."""
    command = [sys.executable, "-m", "hoarfrost", "reconstruct", str(particles.path), "-o", str(output)]
    command += ["--seed", str(seed), "--threads", "1", "--quiet", "--overwrite", *particles.hard_set.options]
    environment = os.environ if source is None else {**os.environ, "PYTHONPATH": str(source)}
    output.parent.mkdir(parents=True, exist_ok=True)
    before, started = cpu_seconds(), time.monotonic()
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    figures: Row = {
        "exit_code": done.returncode,
        "cpu_seconds": round(cpu_seconds() - before, 1),
        "wall_seconds": round(time.monotonic() - started, 1),
    }
    if done.returncode not in (0, 4):
        return {**figures, "error": done.stderr.strip().splitlines()[-1:]}
    return {**judged(particles, output), **figures}


def cpu_seconds() -> float:
    """CPU seconds of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def about() -> dict[str, object]:
    """What the rows of a file share."""
    sets = {name: described(hard_set) for name, hard_set in SETS.items()}
    return {"cores": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__, "sets": sets}


def described(hard_set: HardSet) -> dict[str, object]:
    """What a set is, in short."""
    return {**hard_set.parameters, "pixel_size_A": round(hard_set.pixel_size_A, 3)}


if __name__ == "__main__":
    main()
