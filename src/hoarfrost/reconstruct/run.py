"""The verb `reconstruct`: a particle STAR file in, a run folder out.

From Python::

    import hoarfrost
    result = hoarfrost.reconstruct("particles.star", "run/")
    print(result.map_path, result.resolution_A)
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from hoarfrost._version import __version__
from hoarfrost.durations import about
from hoarfrost.errors import UsageError
from hoarfrost.evaluate.half_maps import HalfMapFSC
from hoarfrost.optim.names import MethodName
from hoarfrost.particles.cache import PackedCache
from hoarfrost.particles.contrast import Contrast, ContrastChoice
from hoarfrost.particles.preprocess import Preprocessor
from hoarfrost.particles.sampling import split_held_out
from hoarfrost.particles.source import ParticleSource
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruct.distribution import Team, joined
from hoarfrost.reconstruct.events import Event, Progress
from hoarfrost.reconstruct.finish import final_pass
from hoarfrost.reconstruct.impose import impose_symmetry
from hoarfrost.reconstruct.live import Live
from hoarfrost.reconstruct.loop import Reconstruction
from hoarfrost.reconstruct.memory import GB
from hoarfrost.reconstruct.refine import Refinement
from hoarfrost.reconstruct.run_folder import check_output, places, prepare_output, write_results
from hoarfrost.reconstruct.settings import Options, Settings, resolve
from hoarfrost.reconstruct.starts import StartsResult, run_starts
from hoarfrost.seeds import named_generator

# Noise alone looks like a speck in one image of a hundred.
WORTH_SAYING = 0.03
IMAGES_PER_CHECK = 256


@dataclass(frozen=True)
class ClassResult:
    """One of the structures that a run found: its map, and how well its half maps agree.

    `folder` has what belongs to it alone; `share` is the share of the particles that show it.
    """

    folder: Path
    map_path: Path
    halves: HalfMapFSC
    share: float


@dataclass(frozen=True)
class RunResult:
    """What a run made.

    `resolution_A` is where the FSC of two half maps falls below 0.143, without mask or in one and corrected for it,
    whichever is coarser, and never finer than the band limit; optimistic unless `independent_halves`, when the halves
    were refined apart. `converged` is False where `epochs` ended the run first. `classes` has one structure, or as many
    as were asked for, the one of most particles first; what is said of one map is said of that.
    """

    output: Path
    classes: tuple[ClassResult, ...]
    particles_path: Path
    independent_halves: bool
    converged: bool
    starts: StartsResult
    seconds: float
    settings: Settings

    @property
    def map_path(self) -> Path:
        """The map."""
        return self.classes[0].map_path

    @property
    def halves(self) -> HalfMapFSC:
        """How well the half maps agree."""
        return self.classes[0].halves

    @property
    def resolution_A(self) -> float:
        """What the half maps claim, in Å."""
        return self.halves.resolution_A

    @property
    def band_limit_A(self) -> float:
        """The finest detail of the images that was used, in Å."""
        return self.halves.band_limit_A


def reconstruct(
    particles: str | Path,
    output: str | Path,
    *,
    seed: int = 0,
    classes: int = 1,
    starts: int | None = None,
    max_resolution_A: float | None = None,
    diameter_A: float | None = None,
    symmetry: str = "C1",
    method: MethodName = "auto",
    epochs: float | None = None,
    batch_size: int | None = None,
    shift_sigma_A: float | None = None,
    shift_extent_A: float | None = None,
    device: str = "auto",
    threads: int | None = None,
    held_out: int | None = None,
    datadir: str | Path | None = None,
    rotate_grid: bool = False,
    memory: str | None = None,
    contrast: ContrastChoice = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Reconstruct a map from the particles of a RELION STAR file, from a random start, into the folder `output`.

    The folder gets map.mrc (box and voxel size of the input), half1.mrc and half2.mrc, mask.mrc and fsc.star
    (how well the halves agree, see `hoarfrost.evaluate.half_maps`), particles.star (the input's rows with the most
    probable pose, its probability and the log-evidence), events.jsonl and config.toml.
    None means: choose from the data. Lengths are in Å. `classes` is the number of structures that the particles show;
    with several there are class001.mrc, class002.mrc, … instead of the map, and for each a folder of the same name with
    its files, its particles among them. `starts` is the number of random starts; None goes on until
    two agree, up to four. `rotate_grid` turns the quadrature of orientations at each iteration rather than at each
    stage. `memory` is what each process may use, like "2GB". `contrast` tells whether particles are white or black in
    the images; auto finds out, and black ones are inverted. `progress` is called with every Event. The same seed,
    device, threads and processes give the same bits.

    In each of several processes that torchrun started, a call takes its share of the work; the first process writes
    the folder and calls `progress`. All return the same result.

    Raises UsageError for options that make no sense and for an `output` that exists without `overwrite` (which
    replaces only what a run wrote before), DataError for particles that cannot be used, LostProcessError where one of
    several processes is lost, and ToldElsewhereError in all but one of the processes that fail together.
    """
    started = time.monotonic()
    options = Options(
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
        rotate_grid=rotate_grid,
        memory=memory,
        contrast=contrast,
    )
    options.check()
    with joined(device, threads) as team:
        return _reconstruct(Path(particles), Path(output), options, team, started, datadir, overwrite, progress)


def _reconstruct(
    particles: Path,
    output: Path,
    options: Options,
    team: Team,
    started: float,
    datadir: str | Path | None,
    overwrite: bool,
    progress: Progress | None,
) -> RunResult:
    team.agree(lambda: check_output(output, overwrite) if team.is_first else None)
    stack = team.agree(lambda: ParticleStack.open(particles, datadir))
    settings = team.agree(
        lambda: resolve(
            stack,
            options,
            output=output,
            datadir=None if datadir is None else str(datadir),
            version=__version__,
            processes=team.size,
        )
    )
    _check_shares(settings, team)
    for chunk in torch.split(torch.arange(stack.n_images), IMAGES_PER_CHECK * team.size):
        team.agree(partial(stack.read, team.share(chunk)))
    source = team.agree(lambda: open_source(stack, settings))
    contrast = Contrast.decide(settings.contrast, team.number_from_first(source.contrast_z))
    settings, source.sign = settings.with_contrast(contrast), contrast.sign
    log = team.agree(lambda: prepare_output(output, settings, source.noise) if team.is_first else None)
    # Only the first process is sure to have the folder.
    source.cache = PackedCache(settings.n_particles, settings.cache_bytes, output if output.is_dir() else None)

    def report(event: Event) -> None:
        if log is None:
            return
        ended = event.fraction_done > 1 - 1e-9
        if ended or event.batch_nll is not None or event.nll is not None or event.message is not None:
            log.write(event)
        if progress is not None:
            progress(event)

    try:
        run = Reconstruction(settings, source, report, team, Live(settings, stack) if team.is_first else None)
        for warning in stack.table.warnings:
            run.say(warning)
        if contrast.message is not None:
            run.say(contrast.message)
        if source.dust_share > WORTH_SAYING and source.preprocessor.removes_dust:
            run.say(
                f"Specks that stand out from the noise are blanked out, in about {source.dust_share:.0%} of the images"
            )
        run.say(forecast_line(run.forecast(), settings))
        optimised, starts = run_starts(run)
        optimised = impose_symmetry(run, optimised)
        settings = run.settings
        refinement = Refinement(run)
        refined = refinement.march(optimised)
        final = final_pass(run, refinement, refined)
        junk = float(final.junk.mean())
        if junk > WORTH_SAYING:
            run.say(
                f"About {junk:.0%} of the images hold nothing that the map explains", run.final_stage, refined.r_max
            )
        if team.is_first:
            write_results(output, stack, settings, final)
        run.report(run.final_stage, refined.r_max, 1.0)
    finally:
        if log is not None:
            log.close()
        source.cache.close()
    return RunResult(
        output=output,
        classes=tuple(
            ClassResult(*places(output, number, settings.classes), of_class.halves, of_class.share)
            for number, of_class in enumerate(final.maps)
        ),
        particles_path=output / "particles.star",
        independent_halves=refined.independent,
        converged=refined.converged,
        starts=starts,
        seconds=time.monotonic() - started,
        settings=settings,
    )


def forecast_line(seconds: float, settings: Settings) -> str:
    """What the user is told before the work begins."""
    return f"Expected: {about(seconds)}, and up to {settings.expected_bytes / GB:.1f} GB of memory"


def open_source(stack: ParticleStack, settings: Settings) -> ParticleSource:
    """The particles of a stack, prepared as `settings` say."""
    training = split_held_out(settings.n_particles, settings.held_out, settings.seed)[1]
    preprocessor = Preprocessor(
        settings.box, settings.diameter_A / settings.pixel_size_A, settings.shift_extent_A / settings.pixel_size_A
    )
    return ParticleSource(
        stack, preprocessor, training, named_generator(settings.seed, "noise"), device=settings.device
    )


def _check_shares(settings: Settings, team: Team) -> None:
    """Raise UsageError where some process would have nothing to do, or where processes do not work on the same."""
    smallest = min(settings.batch_size // 2, settings.held_out, (settings.n_particles - settings.held_out) // 4)
    if team.size > max(1, smallest):
        raise UsageError(
            f"{team.size} processes are too many to share {settings.n_particles} particles in minibatches of "
            f"{settings.batch_size} and judge by {settings.held_out}; start at most {max(1, smallest)}"
        )
    team.agree_on(settings.model_copy(update={"threads": 0}).model_dump_json())
