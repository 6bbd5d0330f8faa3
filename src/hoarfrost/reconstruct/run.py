"""The verb `reconstruct`: a particle STAR file in, a run folder out.

From Python::

    import hoarfrost
    result = hoarfrost.reconstruct("particles.star", "run/")
    print(result.map_path, result.resolution_A)
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from hoarfrost._version import __version__
from hoarfrost.errors import UsageError
from hoarfrost.evaluate.half_maps import HalfMapFSC
from hoarfrost.io.atomic import write_text_atomically
from hoarfrost.io.fsc_star import FscCurves, write_fsc
from hoarfrost.io.mrc import write_volume
from hoarfrost.io.posed_star import write_posed_particles
from hoarfrost.optim.names import MethodName
from hoarfrost.particles.cache import PackedCache
from hoarfrost.particles.contrast import Contrast, ContrastChoice
from hoarfrost.particles.preprocess import Preprocessor
from hoarfrost.particles.sampling import split_held_out
from hoarfrost.particles.source import ParticleSource
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruct.distribution import Team, joined
from hoarfrost.reconstruct.events import Event, EventLog, Progress
from hoarfrost.reconstruct.finish import FinalPass, final_pass
from hoarfrost.reconstruct.impose import impose_symmetry
from hoarfrost.reconstruct.loop import Reconstruction
from hoarfrost.reconstruct.memory import GB, plan_memory
from hoarfrost.reconstruct.refine import Refinement
from hoarfrost.reconstruct.settings import Options, Settings, resolve
from hoarfrost.reconstruct.starts import StartsResult, run_starts
from hoarfrost.seeds import named_generator

# Noise alone looks like a speck in one image of a hundred.
WORTH_SAYING = 0.03
IMAGES_PER_CHECK = 256
# What a run folder may hold, pictures included: --overwrite replaces these and refuses a folder that holds others.
FILES = (
    "map.mrc",
    "half1.mrc",
    "half2.mrc",
    "mask.mrc",
    "fsc.star",
    "particles.star",
    "events.jsonl",
    "config.toml",
    "slices.png",
    "matches.png",
    "fsc.png",
    "orientations.png",
)


@dataclass(frozen=True)
class RunResult:
    """What a run made.

    `resolution_A` is where the FSC of two half maps falls below 0.143, without mask or in one and corrected for it,
    whichever is coarser, and never finer than the band limit; optimistic unless `independent_halves`, when the halves
    were refined apart. `halves` has the curves. `converged` is False where `epochs` ended the run first.
    """

    output: Path
    map_path: Path
    particles_path: Path
    halves: HalfMapFSC
    independent_halves: bool
    converged: bool
    starts: StartsResult
    seconds: float
    settings: Settings

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
    None means: choose from the data. Lengths are in Å. `starts` is the number of random starts; None goes on until
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
    team.agree(lambda: _check_output(output, overwrite) if team.is_first else None)
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
    log = team.agree(lambda: _prepare_output(output, settings) if team.is_first else None)
    # Only the first process is sure to have the folder.
    source.cache = PackedCache(settings.n_particles, settings.cache_bytes, output if output.is_dir() else None)

    def report(event: Event) -> None:
        if log is None:
            return
        if event.batch_nll is not None or event.nll is not None or event.message is not None:
            log.write(event)
        if progress is not None:
            progress(event)

    try:
        run = Reconstruction(settings, source, report, team)
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
        refinement = Refinement(run)
        refined = refinement.march(optimised)
        final = final_pass(run, refinement, refined)
        junk = float(final.junk.mean())
        if junk > WORTH_SAYING:
            run.say(
                f"About {junk:.0%} of the images hold nothing that the map explains", run.final_stage, refined.r_max
            )
        if team.is_first:
            _write(output, stack, settings, final)
    finally:
        if log is not None:
            log.close()
        source.cache.close()
    return RunResult(
        output=output,
        map_path=output / "map.mrc",
        particles_path=output / "particles.star",
        halves=final.halves,
        independent_halves=refined.independent,
        converged=refined.converged,
        starts=starts,
        seconds=time.monotonic() - started,
        settings=settings,
    )


def forecast_line(seconds: float, settings: Settings) -> str:
    """What the user is told before the work begins."""
    s = settings
    plan = plan_memory(
        box=s.box,
        n_particles=s.n_particles,
        stages_r_max=s.stages_r_max,
        refined_r_max=s.refined_r_max,
        budget=s.memory_bytes,
    )
    minutes = seconds / 60
    duration = f"{seconds:.0f} s" if seconds < 90 else f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
    return f"Expected: about {duration}, and up to {plan.expected_bytes / GB:.1f} GB of memory"


def open_source(stack: ParticleStack, settings: Settings) -> ParticleSource:
    """The particles of a stack, prepared as `settings` say."""
    training = split_held_out(settings.n_particles, settings.held_out, settings.seed)[1]
    preprocessor = Preprocessor(
        settings.box, settings.diameter_A / settings.pixel_size_A, settings.shift_extent_A / settings.pixel_size_A
    )
    return ParticleSource(
        stack, preprocessor, training, named_generator(settings.seed, "noise"), device=settings.device
    )


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise UsageError(f"{output} is a file; choose another folder for the run")
    if not any(output.iterdir()):
        return
    if not overwrite:
        raise UsageError(f"{output} exists; choose another folder or give --overwrite")
    others = sorted(entry.name for entry in output.iterdir() if entry.name not in FILES)
    if others:
        raise UsageError(f"{output} holds {others[0]}, which reconstruct did not write; choose another folder")


def _check_shares(settings: Settings, team: Team) -> None:
    """Raise UsageError where some process would have nothing to do, or where processes do not work on the same."""
    smallest = min(settings.batch_size // 2, settings.held_out, (settings.n_particles - settings.held_out) // 4)
    if team.size > max(1, smallest):
        raise UsageError(
            f"{team.size} processes are too many to share {settings.n_particles} particles in minibatches of "
            f"{settings.batch_size} and judge by {settings.held_out}; start at most {max(1, smallest)}"
        )
    team.agree_on(settings.model_copy(update={"threads": 0}).model_dump_json())


def _prepare_output(output: Path, settings: Settings) -> EventLog:
    """Make the folder, or empty it of what an earlier run left: an old map must not pass for the new run's.

    Writes the settings, and opens the log.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (output / name).unlink(missing_ok=True)
        free = shutil.disk_usage(output).free
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error
    if free == 0:
        raise UsageError(f"cannot write {output}: no space left on the disk")
    write_text_atomically(output / "config.toml", settings.to_toml())
    return EventLog(output / "events.jsonl")


def _write(output: Path, stack: ParticleStack, settings: Settings, final: FinalPass) -> None:
    halves = final.halves
    maps = {
        "map.mrc": final.volume,
        "half1.mrc": final.half_volumes[0],
        "half2.mrc": final.half_volumes[1],
        "mask.mrc": halves.mask,
    }
    for name, volume in maps.items():
        write_volume(output / name, volume.numpy().astype(np.float32), settings.pixel_size_A)
    curves = FscCurves(
        unmasked=halves.unmasked.numpy(),
        masked=halves.masked.numpy(),
        randomised=halves.randomised.numpy(),
        corrected=halves.corrected.numpy(),
        length_A=settings.box * settings.pixel_size_A,
        resolution_A=halves.resolution_A,
        band_limit_A=halves.band_limit_A,
    )
    write_fsc(output / "fsc.star", curves)
    write_posed_particles(
        output / "particles.star",
        stack.table,
        final.rotations.numpy(),
        final.shifts_A.numpy(),
        {
            "rlnMaxValueProbDistribution": final.probability.numpy(),
            "rlnLogLikeliContribution": final.log_evidence.numpy(),
            "hoarfrostJunkProbability": final.junk.numpy(),
        },
    )
