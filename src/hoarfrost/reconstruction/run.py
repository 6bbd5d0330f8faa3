"""The verb `reconstruct`: a particle STAR file in, a run folder out.

From Python::

    import hoarfrost
    result = hoarfrost.reconstruct("particles.star", "run/")
    print(result.map_path, result.resolution_A)
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hoarfrost._version import __version__
from hoarfrost.durations import about
from hoarfrost.errors import StoppedError, UsageError
from hoarfrost.evaluation.half_maps import HalfMapFSC
from hoarfrost.maths.seeds import named_generator
from hoarfrost.optim.names import MethodName
from hoarfrost.parallel.join import joined
from hoarfrost.parallel.team import Team
from hoarfrost.particles.cache import PackedCache
from hoarfrost.particles.contrast import Contrast, ContrastChoice
from hoarfrost.particles.masked import told_of_mask
from hoarfrost.particles.preprocess import Preprocessor
from hoarfrost.particles.sampling import split_held_out
from hoarfrost.particles.source import ParticleSource
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.folder import check_output, places, prepare_output, write_results
from hoarfrost.reconstruction.refinement.final_passes import final_passes
from hoarfrost.reconstruction.refinement.march import march
from hoarfrost.reconstruction.refinement.sweep import Refinement
from hoarfrost.reconstruction.same_run import describe_data
from hoarfrost.reconstruction.settings.memory import GB
from hoarfrost.reconstruction.settings.options import Options, Settings, resolve
from hoarfrost.reconstruction.starts.agreement import StartsResult, run_starts
from hoarfrost.reconstruction.starts.loop import Reconstruction
from hoarfrost.reconstruction.state.checkpoints import INTERVAL_S, Checkpoints, State, check_interval
from hoarfrost.reconstruction.state.store import Checkpoint, CheckpointFolder
from hoarfrost.reconstruction.symmetry.impose import impose_symmetry
from hoarfrost.reconstruction.watch.events import Event, EventLog, Progress
from hoarfrost.reconstruction.watch.live import Live

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
    checkpoint_every_s: float = INTERVAL_S,
    stop: Callable[[], bool] | None = None,
) -> RunResult:
    """Reconstruct a map from the particles of a RELION STAR file, from a random start, into the folder `output`.

    The folder gets map.mrc (box and voxel size of the input), half1.mrc and half2.mrc, mask.mrc and fsc.star
    (how well the halves agree, see `hoarfrost.evaluation.half_maps`), particles.star (the input's rows with the most
    probable pose, its probability and the log-evidence), events.jsonl and config.toml.
    None means: choose from the data. Lengths are in Å. `classes` is the number of structures that the particles show;
    with several there are class001.mrc, class002.mrc, … instead of the map, and for each a folder of the same name with
    its files, its particles among them. `starts` is the number of random starts; None goes on until
    two agree, up to four. `rotate_grid` turns the quadrature of orientations at each iteration rather than at each
    stage. `memory` is what each process may use, like "2GB". `contrast` tells whether particles are white or black in
    the images; auto finds out, and black ones are inverted. `progress` is called with every Event. The same seed,
    device, threads and processes give the same bits.

    A checkpoint is written every `checkpoint_every_s` seconds, from which `hoarfrost.resume` goes on. `stop` is asked
    after each minibatch: where it says so, the run writes one more and ends with StoppedError.

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
    check_interval(checkpoint_every_s)
    with joined(device, threads) as team:
        return _reconstruct(
            Path(particles),
            Path(output),
            options,
            team,
            started,
            datadir,
            overwrite,
            progress,
            checkpoint_every_s,
            stop,
        )


def _reconstruct(
    particles: Path,
    output: Path,
    options: Options,
    team: Team,
    started: float,
    datadir: str | Path | None,
    overwrite: bool,
    progress: Progress | None,
    checkpoint_every_s: float,
    stop: Callable[[], bool] | None,
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

    def check(chunk: Tensor) -> None:
        if stop is not None and stop():
            raise StoppedError("Stopped before the work began: give the same command to start again")
        stack.read(team.share(chunk))

    for chunk in torch.split(torch.arange(stack.n_images), IMAGES_PER_CHECK * team.size):
        team.agree(partial(check, chunk))
    source = team.agree(lambda: open_source(stack, settings))
    contrast = Contrast.decide(settings.contrast, team.number_from_first(source.contrast_z))
    settings, source.sign = settings.with_contrast(contrast), contrast.sign
    log = team.agree(lambda: prepare_output(output, settings, source.noise) if team.is_first else None)
    checkpoints = team.agree(lambda: make_checkpoints(output, settings, stack, team, log, checkpoint_every_s, stop))
    return carry_out(output, stack, settings, source, contrast, team, log, checkpoints, started, progress)


def make_checkpoints(
    output: Path,
    settings: Settings,
    stack: ParticleStack,
    team: Team,
    log: EventLog | None,
    every_s: float,
    stop: Callable[[], bool] | None,
    last: Checkpoint | None = None,
) -> Checkpoints:
    """The checkpoints of a run that began with `settings`, which goes on from the `last` one if there is one.

    Raises DataError where a file of the particles cannot be read.
    """
    facts = {"settings": settings.model_dump(mode="json"), "data": describe_data(stack), "every_s": every_s}
    folder = CheckpointFolder(output)

    def write(state: State) -> None:
        assert log is not None  # only the first process writes
        log.flush_to_disk()
        folder.write({**facts, "events_bytes": log.n_bytes}, state)

    return Checkpoints(
        write,
        every_s=every_s,
        stop=stop,
        how_to_go_on=how_to_go_on(output, team.size),
        kept=None if last is None else last.state,
        team=team,
    )


def how_to_go_on(output: Path, processes: int) -> str:
    """The command that goes on with a run."""
    launcher = "" if processes == 1 else f"torchrun --nproc-per-node {processes} -m "
    return f"{launcher}hoarfrost resume {shlex.quote(str(output))}"


def carry_out(
    output: Path,
    stack: ParticleStack,
    settings: Settings,
    source: ParticleSource,
    contrast: Contrast,
    team: Team,
    log: EventLog | None,
    checkpoints: Checkpoints,
    started: float,
    progress: Progress | None,
    notes: Sequence[str] = (),
) -> RunResult:
    """From settings and particles to the files of the run, from the beginning or from a checkpoint.

    The user is told `notes`, which are not logged. Raises as `reconstruct` does.
    """
    # Only the first process is sure to have the folder.
    source.cache = PackedCache(settings.n_particles, settings.cache_bytes, output if output.is_dir() else None)
    is_logged = False

    def report(event: Event) -> None:
        if log is None:
            return
        ended = event.fraction_done > 1 - 1e-9
        tells = ended or event.batch_nll is not None or event.nll is not None or event.message is not None
        if is_logged and tells:
            log.write(event)
        if progress is not None:
            progress(event)

    try:
        live = Live(settings, stack) if team.is_first else None
        run = Reconstruction(settings, source, report, team, live, checkpoints)
        goes_on = checkpoints.begin(run.state, run.restore)
        for note in notes:
            run.say(note)
        is_logged = True
        if not goes_on:
            _say_what_is_known(run, stack, contrast)
        optimised, starts = run_starts(run)
        optimised = impose_symmetry(run, optimised)
        settings = run.settings
        with Refinement.of(run) as refinement:
            refined = march(refinement, optimised)
            final = final_passes(run, refinement, refined)
        junk, r_max = float(final.junk.mean()), final.maps[0].halves.r_max
        if junk > WORTH_SAYING:
            run.say(f"About {junk:.0%} of the images hold nothing that the map explains", run.final_stage, r_max)
        if team.is_first:
            write_results(output, stack, settings, final)
        run.report(run.final_stage, r_max, 1.0)
        if team.is_first:
            # What is left of them does no harm.
            with contextlib.suppress(UsageError):
                CheckpointFolder(output).remove()
    except UsageError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        # The message says what the system refused, not what to do about it.
        hint = f"when that is mended, go on with: {how_to_go_on(output, team.size)}"
        raise UsageError(f"{error}; {hint}") from error
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
        seconds=time.monotonic() - started + run.seconds_before,
        settings=settings,
    )


def _say_what_is_known(run: Reconstruction, stack: ParticleStack, contrast: Contrast) -> None:
    """Tell what the particles are like, and how long the run will take."""
    source = run.source
    for warning in stack.table.warnings:
        run.say(warning)
    if contrast.message is not None:
        run.say(contrast.message)
    if source.preprocessor.untouched_px is not None:
        run.say(told_of_mask(2 * source.preprocessor.untouched_px * stack.pixel_size_A))
    if source.dust_share > WORTH_SAYING and source.preprocessor.removes_dust:
        run.say(f"Specks that stand out from the noise are blanked out, in about {source.dust_share:.0%} of the images")
    run.say(forecast_line(run.forecast(), run.settings))


def forecast_line(seconds: float, settings: Settings) -> str:
    """What the user is told before the work begins."""
    return f"Expected: {about(seconds)}, and up to {settings.expected_bytes / GB:.1f} GB of memory"


def open_source(stack: ParticleStack, settings: Settings, among: Tensor | None = None) -> ParticleSource:
    """The particles of a stack, prepared as `settings` say; noise and contrast are estimated from those `among` (m,).

    Unless given these are the ones to train on.
    """
    if among is None:
        among = split_held_out(settings.n_particles, settings.held_out, settings.seed)[1]
    preprocessor = Preprocessor(
        settings.box, settings.diameter_A / settings.pixel_size_A, settings.shift_extent_A / settings.pixel_size_A
    )
    return ParticleSource(stack, preprocessor, among, named_generator(settings.seed, "noise"), device=settings.device)


def _check_shares(settings: Settings, team: Team) -> None:
    """Raise UsageError where some process would have nothing to do, or where processes do not work on the same."""
    smallest = min(settings.batch_size // 2, settings.held_out, (settings.n_particles - settings.held_out) // 4)
    if team.size > max(1, smallest):
        raise UsageError(
            f"{team.size} processes are too many to share {settings.n_particles} particles in minibatches of "
            f"{settings.batch_size} and judge by {settings.held_out}; start at most {max(1, smallest)}"
        )
    team.agree_on(settings.model_copy(update={"threads": 0}).model_dump_json())
