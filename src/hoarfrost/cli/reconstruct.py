"""``hoarfrost reconstruct``: particle images in, a map and poses out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hoarfrost.cli.stop import Stop
from hoarfrost.optim.names import MethodName
from hoarfrost.parallel.launch import is_first

if TYPE_CHECKING:
    from hoarfrost.reconstruction.run import RunResult


def reconstruct(
    particles: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    seed: int = 0,
    classes: Annotated[int, Parameter(name=["--classes", "-k"])] = 1,
    starts: int | None = None,
    max_resolution_A: Annotated[float | None, Parameter(name="--max-resolution")] = None,
    diameter_A: Annotated[float | None, Parameter(name="--diameter")] = None,
    symmetry: str = "C1",
    method: MethodName = "auto",
    epochs: float | None = None,
    batch_size: int | None = None,
    shift_sigma_A: Annotated[float | None, Parameter(name="--shift-sigma")] = None,
    shift_extent_A: Annotated[float | None, Parameter(name="--shift-extent")] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    held_out: int | None = None,
    datadir: Path | None = None,
    rotate_grid: Annotated[bool, Parameter(show_default=False)] = False,
    memory: str | None = None,
    contrast: Literal["auto", "white", "black"] = "auto",
    overwrite: Annotated[bool, Parameter(show_default=False)] = False,
    checkpoint_every_s: Annotated[float, Parameter(name="--checkpoint-every")] = 60.0,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], show_default=False)] = False,
) -> None:
    """Reconstruct a 3D map from particle images, with no starting model.

    Every option has a default that suits most data; those without a number are chosen from the images.

    Parameters
    ----------
    particles
        RELION STAR file (3.0, 3.1, 4 or 5) or cryoSPARC's .cs file of the particles, with CTF parameters. Poses in
        it are not used.
    output
        Folder to make for the run: map.mrc, half1.mrc, half2.mrc, mask.mrc, fsc.star, particles.star, events.jsonl,
        config.toml and pictures. Its page report.html shows how the run goes, and what came of it.
    seed
        Number that all random choices follow from; the same seed repeats the run.
    classes
        Number of structures among the particles. With several there are class001.mrc, class002.mrc, … and a folder
        for each, with its particles.
    starts
        Begin from so many random maps, compare what becomes of them, and go on with the mean of those that agree.
        Unless given, a second start follows the first and so on, up to four, until two agree.
    max_resolution_A
        Finest detail to use, in Å. A little finer than a twelfth of the box unless given; never beyond what
        helps to explain particles that were held out.
    diameter_A
        Diameter of the particle, in Å. 85 % of the box unless given.
    symmetry
        Point group of the molecule: Cn or Dn with any n (C4, D7), T, O or I; or auto, to find it in the map (Cn and Dn
        up to n = 12).
    method
        How to optimise: auto needs no learning rate and is the fastest; the others are those of `hoarfrost benchmark`.
    epochs
        Stop after this many passes over the particles. By default, stop when nothing improves any more.
    batch_size
        Particles in each minibatch. 100 unless given.
    shift_sigma_A
        Expected spread of the particles' offsets from the centre of their images, as a standard deviation
        along x and y in Å. 3 % of the box unless given.
    shift_extent_A
        Largest offset to consider, in Å. Three standard deviations unless given.
    device
        Where to compute; auto takes the GPU if there is one.
    threads
        CPU threads to use. All cores unless given; processes that torchrun started share those of their machine.
    held_out
        Particles to keep aside for judging progress. 100 unless given, or a fifth if there are fewer than 500.
    datadir
        Folder that the image names in the STAR file are relative to. By default, that of the STAR file.
    rotate_grid
        Turn the grid of orientations at every iteration, rather than at every stage. Slower.
    memory
        Memory that the program may use, like 2GB or 800MB. 2 GB unless given, or half of what the machine has if that
        is less.
    contrast
        How particles look in the images: white on dark, or black on light, which are inverted first; auto finds out.
    overwrite
        Replace the run folder if it exists.
    checkpoint_every_s
        Seconds between checkpoints, from which hoarfrost resume goes on. Ctrl-C and SIGTERM write one more.
    quiet
        Show no progress.
    """
    from hoarfrost.cli.watch import watched
    from hoarfrost.reconstruction.run import reconstruct as run

    with Stop() as stop, watched(output, quiet=quiet or not is_first(), structures=classes) as progress:
        result = run(
            particles,
            output,
            seed=seed,
            classes=classes,
            starts=starts,
            max_resolution_A=max_resolution_A,
            diameter_A=diameter_A,
            symmetry=symmetry,
            method=method,
            epochs=epochs,
            batch_size=batch_size,
            shift_sigma_A=shift_sigma_A,
            shift_extent_A=shift_extent_A,
            device=device,
            threads=threads,
            held_out=held_out,
            datadir=datadir,
            rotate_grid=rotate_grid,
            memory=memory,
            contrast=contrast,
            overwrite=overwrite,
            progress=progress,
            checkpoint_every_s=checkpoint_every_s,
            stop=stop,
        )
    show_result(result)


def show_result(result: RunResult) -> None:
    """Draw the pictures of a run that has come to its end, and say what came of it.

    Raises NotConvergedError where no two random starts agree.
    """
    if not is_first():
        return
    from hoarfrost.cli.summary import summary, wrapped
    from hoarfrost.reporting.report import report
    from hoarfrost.reporting.run_pictures import draw_pictures

    for of_class in result.classes:
        draw_pictures(of_class.folder)
    report(result.output)
    for line in summary(result):
        print(wrapped(line) if sys.stdout.isatty() else line)
    check_starts(result.starts.agrees)


def check_starts(agrees: Sequence[bool]) -> None:
    """Raise NotConvergedError where, of several random starts, only the chosen one agrees with itself."""
    from hoarfrost.errors import NotConvergedError

    if sum(agrees) == 1:
        raise NotConvergedError(
            f"no two of {len(agrees)} random starts agree, so do not trust this map; look at matches.png, "
            "remove bad particles, or try more --starts"
        )
