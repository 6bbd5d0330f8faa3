"""The pictures of the documentation, from runs of the program: `make pictures`.

From the run of the example particles (`make demo`): its page in a wide window and on a phone. From the example
particles: what inspect says, in docs/inspect.md. With ``--model``, the atomic model of β-galactosidase (PDB entry
6CVM): maps that are wrong, each from particles simulated to make it so.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from browser import screenshot
from files import DOCS, replace_block, save
from wrong_maps import draw_wrong_maps


def draw_report(run: Path) -> None:
    """The page of a run, from its top to the map's panels' end in a wide window, and its beginning on a phone."""
    page = (run / "report.html").resolve()
    save(screenshot(page, 1280, 2560), "report-1280.png")
    save(screenshot(page, 390, 2400), "report-390.png")


def write_inspection() -> None:
    """What inspect says of the example particles, as it is printed into a log."""
    hoarfrost = [sys.executable, "-m", "hoarfrost"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*hoarfrost, "example", "-o", "example"], cwd=folder, check=True, capture_output=True)
        command = [*hoarfrost, "inspect", "example/particles.star"]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    replace_block(DOCS / "inspect.md", "inspect", "\n".join(lines))


def main() -> None:
    """Make them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of the example run")
    parser.add_argument("--model", type=Path, help="atomic model of β-galactosidase, 6cvm.pdb.gz or .cif.gz")
    parser.add_argument("--work", type=Path, default=Path("wrong-maps"), help="where to put the runs of wrong maps")
    given = parser.parse_args()
    draw_report(given.run)
    write_inspection()
    if given.model is not None:
        draw_wrong_maps(given.model, given.work)


if __name__ == "__main__":
    main()
