"""Peak memory of whole `hoarfrost reconstruct` processes as the number of particles grows.

    python benchmarks/memory.py --output benchmarks/results/memory.json

The particles are rows of a STAR file that repeat the same 1,000 images of noise, each with a defocus of its own:
nothing in the program knows that, and 200,000 real images would be 3 GB. The band limit is the lowest there is and
only a thousand images are optimised on, so that the last pass over all particles, which holds the most of each, comes
soon.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from hoarfrost.io.mrc import write_stack

BOX, PIXEL_SIZE_A, N_IMAGES = 64, 5.6, 1000
# Maps of noise that do not agree end so.
NOT_TRUSTED = 4
HEAD = f"""
data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnImagePixelSize #5
_rlnImageSize #6
1 300 2.7 0.1 {PIXEL_SIZE_A} {BOX}

data_particles

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnCoordinateX #3
_rlnCoordinateY #4
_rlnDefocusU #5
_rlnDefocusV #6
_rlnDefocusAngle #7
_rlnCtfMaxResolution #8
_rlnOpticsGroup #9
"""


def write_particles(folder: Path, n: int) -> Path:
    """A STAR file of n rows in `folder`, and the stack that it names."""
    generator = np.random.default_rng(0)
    batches = (generator.standard_normal((100, BOX, BOX), np.float32) for _ in range(N_IMAGES // 100))
    write_stack(folder / "particles.mrcs", N_IMAGES, (BOX, BOX), PIXEL_SIZE_A, batches)
    path = folder / f"particles-{n}.star"
    with path.open("w", encoding="ascii") as file:
        file.write(HEAD)
        for row, defocus in enumerate(generator.uniform(10_000, 30_000, n)):
            image, micrograph = row % N_IMAGES + 1, row // 250
            place = f"{row % 4000}.125 {row * 7 % 4000}.875"
            file.write(
                f"{image:06d}@particles.mrcs micrographs/micrograph_{micrograph:05d}.mrc {place} "
                f"{defocus:.6f} {defocus - 300:.6f} {row % 180}.250000 4.120000 1\n"
            )
    return path


def peak_of_run(star: Path, run: Path, options: list[str]) -> dict[str, float | int]:
    """Peak memory in MB, and seconds, of one process."""
    command = [sys.executable, "-m", "hoarfrost", "reconstruct", str(star), "-o", str(run), "--quiet", *options]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, NOT_TRUSTED):
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_MB": round(usage.ru_maxrss * unit / 1e6), "seconds": round(time.monotonic() - started, 1)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    lowest = f"{BOX * PIXEL_SIZE_A / 2:g}"
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for n in options.particles:
            star = write_particles(folder, n)
            epochs = f"{1000 / n:g}"
            chosen = ["--max-resolution", lowest, "--epochs", epochs, "--threads", str(options.threads)]
            rows.append({"particles": n} | peak_of_run(star, folder / f"run-{n}", chosen))
            print(json.dumps(rows[-1]), flush=True)
            result = {
                "what": f"peak memory of `hoarfrost reconstruct`, {BOX} px, r_max 2, a last pass over all particles",
                "machine": {
                    "processor": processor(),
                    "cores": os.cpu_count(),
                    "memory_GB": round(os.sysconf("SC_PHYS_PAGES") * resource.getpagesize() / 1e9, 1),
                    "python": platform.python_version(),
                    "torch": torch.__version__,
                },
                "threads": options.threads,
                "runs": rows,
            }
            options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def processor() -> str:
    """Its name, where the system tells one."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
