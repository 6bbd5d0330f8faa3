"""``hoarfrost benchmark``: optimisers compared on one data set, with a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def benchmark(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    preset: Literal["quick", "paper-synthetic", "paper-real"] = "quick",
    methods: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    particles: Annotated[Path | None, Parameter(name="--data")] = None,
    datadir: Path | None = None,
    reference: Path | None = None,
    seeds: int = 1,
    epochs: float | None = None,
    n_images: int | None = None,
    band_limit: float | None = None,
    baseline_iterations: int | None = None,
    ctf_from: Path | None = None,
    no_sensitivity: Annotated[bool, Parameter(show_default=False)] = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    overwrite: Annotated[bool, Parameter(show_default=False)] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], show_default=False)] = False,
) -> None:
    """Compare optimisers and baselines from the same random start on one data set, and write a report.

    Parameters
    ----------
    output
        Folder to make: report.html, results.json, maps and pictures.
    preset
        quick ends in minutes; paper-synthetic is the published comparison, 50,000 images of a drawn molecule;
        paper-real is its settings for the particles given with --data.
    methods
        Which to compare: sgd, momentum, nesterov, adagrad, tonga, olbfgs, hf, sag, adam, auto, projection-matching,
        batch-em, or any torch optimiser as path.to.Class:option=value or module:Class. All of ours unless given.
    particles
        RELION STAR file of particles to use in place of synthetic images.
    datadir
        Folder that the image names in the STAR file are relative to. By default, that of the STAR file.
    reference
        The known map of these particles, for FSC; in their box and pixel size.
    seeds
        How many random starts.
    epochs
        Passes over the images, for each method.
    n_images
        How many synthetic images.
    band_limit
        Finest detail to use, as a share of Nyquist.
    baseline_iterations
        Iterations of each baseline.
    ctf_from
        RELION STAR file to draw the CTFs of synthetic images from.
    no_sensitivity
        Do not repeat each method with a third of its step and with three times it.
    device
        Where to compute; auto takes the GPU if there is one.
    threads
        CPU threads to use. All cores unless given.
    overwrite
        Replace the study folder if it exists.
    quiet
        Show no progress.
    """
    from hoarfrost.cli.study_progress import StudyProgress
    from hoarfrost.reporting.study_page import write_study_report
    from hoarfrost.study.benchmark import benchmark as run

    sys.path.insert(0, "")  # the user's own module with an optimiser lies where the command is run
    with StudyProgress(quiet=quiet) as progress:
        result = run(
            output,
            preset=preset,
            methods=methods,
            particles=particles,
            datadir=datadir,
            reference=reference,
            seeds=seeds,
            epochs=epochs,
            n_images=n_images,
            band_limit=band_limit,
            baseline_iterations=baseline_iterations,
            ctf_from=ctf_from,
            sensitivity=not no_sensitivity,
            device=device,
            threads=threads,
            overwrite=overwrite,
            progress=progress,
        )
    page = write_study_report(output)
    methods_found = result.results["summary"]["methods"]
    width = max(len(method["title"]) for method in methods_found.values())
    for method in methods_found.values():
        fsc = "" if method["mean_fsc"] is None else f"   mean FSC {method['mean_fsc']:.3f}"
        print(f"{method['title']:<{width}}  held-out NLL {method['final_nll']:.2f}{fsc}")
    print(f"Report: {page}")
