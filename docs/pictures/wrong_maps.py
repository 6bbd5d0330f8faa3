"""Maps that are wrong, each for a reason of its own, and a right one: real runs on simulated particles.

The particles are of β-galactosidase (D2), 48 pixels of 5 Å. Every run has the defaults but for what it is here to show.
About half an hour on one core; a run that is there already is not made again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from files import save
from PIL import Image

from hoarfrost.reporting.pictures import draw_slices

SIMULATE = ("--box", "48", "--pixel-size", "5", "--shift-sigma", "5", "-n")
WIDTH = 760


@dataclass(frozen=True)
class Case:
    """A wrong map: how its particles are simulated (those of `right` unless told) and reconstructed."""

    name: str
    particles: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    """Further pictures of the run that show it."""
    is_alike: bool = True
    """Whether it is alike enough to the molecule to be laid on it."""


CASES = (
    Case("right", ("1000", "--snr", "0.1"), also=("matches",)),
    Case("noise", ("500", "--snr", "0.000001"), also=("matches",), is_alike=False),
    Case("contrast", options=("--contrast", "black", "--starts", "1"), is_alike=False),
    Case("views", ("1000", "--snr", "0.1", "--preferred", "20"), also=("orientations",)),
    Case("few", ("60", "--snr", "0.1")),
    Case("optimum", ("400", "--snr", "0.006"), also=("matches",)),
    Case("symmetry", options=("--symmetry", "C3"), is_alike=False),
)


def hoarfrost(*words: object) -> None:
    """Run a command. A run whose starts do not agree ends with 4, and has its pictures all the same."""
    command = [sys.executable, "-m", "hoarfrost", *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode not in (0, 4):
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    print(done.stdout)


def draw_wrong_maps(model: Path, work: Path) -> None:
    """Simulate, reconstruct and draw every case, in folders of `work`."""
    right = work / "particles-right"
    for case in CASES:
        particles, run = work / f"particles-{case.name}" if case.particles else right, work / case.name
        if not (particles / "particles.star").exists():
            hoarfrost("simulate", model, *SIMULATE, *case.particles, "-o", particles)
        if not (run / "slices.png").exists():
            hoarfrost("reconstruct", particles / "particles.star", "-o", run, *case.options)
        draw_map(case, run, right / "truth.mrc")
        for name in case.also:
            with Image.open(run / f"{name}.png") as image:
                save(narrowed(image), f"wrong-{case.name}-{name}.png")


def draw_map(case: Case, run: Path, truth: Path) -> None:
    """Slices and projections of a map, turned to lie as the molecule does, so that the pictures can be compared."""
    volume = run / "map.mrc"
    if case.is_alike:
        volume = run / "aligned" / "aligned.mrc"
        if not volume.exists():
            hoarfrost("compare", run / "map.mrc", truth, "-o", volume.parent)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(volume, Path(folder) / "map.mrc")
        draw_slices(folder, Path(folder) / "slices.png")
        with Image.open(Path(folder) / "slices.png") as image:
            save(narrowed(image), f"wrong-{case.name}.png", colours=64)


def narrowed(image: Image.Image) -> Image.Image:
    """A picture as wide as the text of a page."""
    return image.convert("RGB").resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
