"""The verbs `reconstruct` and `refine`: a particle STAR file in, a run folder out."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hoarfrost.errors import StoppedError, UsageError
from hoarfrost.evaluation.views import JUNK_ABOVE, share_on_circle, views_of
from hoarfrost.io.atomic import check_names
from hoarfrost.io.columns import HALF_COLUMN, POSE_COLUMNS
from hoarfrost.io.posed_star import check_can_be_posed
from hoarfrost.maths.seeds import named_generator
from hoarfrost.parallel.join import joined
from hoarfrost.parallel.launch import resume_command
from hoarfrost.parallel.team import Team
from hoarfrost.particles.cache import PackedCache
from hoarfrost.particles.contrast import Contrast
from hoarfrost.particles.duplicates import digests
from hoarfrost.particles.masked import told_of_mask
from hoarfrost.particles.preprocess import Preprocessor
from hoarfrost.particles.sampling import split_held_out
from hoarfrost.particles.source import ParticleSource
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.folder import RESULTS_ARE_THERE, check_output, places, prepare_output, write_results
from hoarfrost.reconstruction.forecast import Forecast, fraction_done_of, measured_forecast
from hoarfrost.reconstruction.observer import Observer
from hoarfrost.reconstruction.phases import Run
from hoarfrost.reconstruction.refinement.final_passes import FinalPasses
from hoarfrost.reconstruction.refinement.poses import Poses
from hoarfrost.reconstruction.result import ClassResult, RunResult
from hoarfrost.reconstruction.same_run import describe_data
from hoarfrost.reconstruction.schedule import SEARCH_R_MAX
from hoarfrost.reconstruction.settings.initial import Initial
from hoarfrost.reconstruction.settings.memory import GB
from hoarfrost.reconstruction.settings.options import CHECKPOINT_EVERY_S, InitialOptions, Options, RefineOptions
from hoarfrost.reconstruction.settings.plan import RANDOM, check, resolve
from hoarfrost.reconstruction.settings.settings import Settings
from hoarfrost.reconstruction.state.checkpoints import Checkpoints
from hoarfrost.reconstruction.state.phase import News, drive
from hoarfrost.reconstruction.state.store import Checkpoint, CheckpointFolder
from hoarfrost.reconstruction.trust import Evidence
from hoarfrost.reconstruction.watch.events import EventLog, Progress
from hoarfrost.reconstruction.watch.live import Live

# Noise alone looks like a speck in one image of a hundred.
WORTH_SAYING = 0.03
# Of fewer particles maps are poor, and draw most views to a few.
LEAST_TO_TELL = 200
IMAGES_PER_CHECK = 256


@dataclass(frozen=True)
class Watching:
    """How a run is watched: whom its events are told, whether it is to `stop`, and how often it is written down.

    `started` is the time by `time.monotonic` at which this process began with it. The user is told `notes` first, which
    are not logged.
    """

    progress: Progress | None = None
    stop: Callable[[], bool] | None = None
    checkpoint_every_s: float = CHECKPOINT_EVERY_S
    started: float = field(default_factory=time.monotonic)
    notes: tuple[str, ...] = ()


def reconstruct(particles: Path, output: Path, options: Options) -> RunResult:
    """The verb `hoarfrost.reconstruct`, which documents arguments and errors."""
    started = time.monotonic()
    check(options)
    watching = Watching(options.progress, options.stop, options.checkpoint_every_s, started)
    with joined(options.device, options.threads) as team:
        return _reconstruct(particles, output, options, team, watching)


def refine(particles: Path, output: Path, options: RefineOptions) -> RunResult:
    """The verb `hoarfrost.refine`, which documents arguments and errors."""
    started, of_run = time.monotonic(), options.of_run
    if of_run.finds_symmetry:
        raise UsageError("--symmetry auto is for reconstruct; poses are those of one point group: name it")
    check(of_run)
    watching = Watching(options.progress, options.stop, options.checkpoint_every_s, started)
    with joined(options.device, options.threads) as team:
        return _reconstruct(particles, output, of_run, team, watching, options)


def _reconstruct(
    particles: Path, output: Path, options: Options, team: Team, watching: Watching, given: InitialOptions | None = None
) -> RunResult:
    team.agree(lambda: check_names(particles, output, options.datadir))
    team.agree(lambda: check_output(output, options.overwrite) if team.is_first else None)
    stack = team.agree(lambda: ParticleStack.open(particles, options.datadir))
    team.agree(lambda: check_can_be_posed(output / RESULTS_ARE_THERE, stack.table))
    initial = team.agree(lambda: RANDOM if given is None else Initial.of(stack, given))
    settings = team.agree(lambda: resolve(stack, options, output=output, processes=team.size, initial=initial))
    _check_shares(settings, team)
    stack = looked_through(stack, team, watching)
    source = team.agree(lambda: open_source(stack, settings))
    z = team.once_number(source.contrast_z)
    contrast = Contrast.decide(settings.contrast, z, has_signs=stack.has_signs)
    settings = settings.with_contrast(contrast)
    log = team.agree(lambda: prepare_output(output, settings, source.noise) if team.is_first else None)
    source = source.in_use(contrast.sign, cache_of(output, settings))
    env = Env(settings, source, team, watching.started)
    return carry_out(begun(env, contrast), env, output, watching, log)


def looked_through(stack: ParticleStack, team: Team, watching: Watching) -> ParticleStack:
    """The stack after a pass over its images, by which copies under other names are known.

    Raises DataError for an image that cannot be used, StoppedError where the run is to stop.
    """

    def look(chunk: Tensor) -> Tensor:
        if watching.stop is not None and watching.stop():
            raise StoppedError("Stopped before the work began: give the same command to start again")
        return digests(stack.read(team.share(chunk)))

    chunks = torch.split(torch.arange(stack.n_images), IMAGES_PER_CHECK * team.size)
    return stack.with_digests(
        torch.cat([team.gather(team.agree(partial(look, chunk)), len(chunk)) for chunk in chunks])
    )


def begun(env: Env, contrast: Contrast) -> Run:
    """A run before its first start, with what is known of the particles and the machine."""
    forecast = measured_forecast(env)
    return Run.begin(env, fraction_done_of(env.settings, forecast.stages_s), what_is_known(env, contrast, forecast))


def carry_out(
    run: Run, env: Env, output: Path, watching: Watching, log: EventLog | None, last: Checkpoint | None = None
) -> RunResult:
    """From a run at any moment to the files in `output`; `last` is the checkpoint that it goes on from, if it does.

    Raises as `reconstruct` does.
    """
    try:
        checkpoints = env.team.agree(lambda: _checkpoints(env, output, watching, log, last))
        live = Live(env.settings, env.source.stack) if env.team.is_first else None
        observer = Observer(log, None if log is None else watching.progress, live, checkpoints)
        for note in watching.notes:
            observer.note(run, env, note)
        if last is None:
            observer.after(run, env)
        run = drive(run, env, observer)
        return _finished(run, env, output, observer)
    except UsageError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        # The message says what the system refused, not what to do about it.
        hint = f"when that is mended, go on with: {resume_command(output, env.team.size)}"
        raise UsageError(f"{error}; {hint}") from error
    finally:
        env.memo.close()
        if log is not None:
            log.close()
        env.source.close()


def _checkpoints(
    env: Env, output: Path, watching: Watching, log: EventLog | None, last: Checkpoint | None
) -> Checkpoints:
    """The checkpoints of a run. Raises DataError where a file of the particles cannot be read."""
    every_s = watching.checkpoint_every_s
    settings, data = env.settings.model_dump(mode="json"), describe_data(env.source.stack)
    folder = CheckpointFolder(output)

    def write(run: Any) -> None:
        assert log is not None  # only the first process writes
        log.flush_to_disk()
        folder.write({"settings": settings, "data": data, "every_s": every_s, "events_bytes": log.n_bytes}, run)

    return Checkpoints(
        write,
        every_s=every_s,
        stop=watching.stop,
        how_to_go_on=resume_command(output, env.team.size),
        goes_on=last is not None,
        team=env.team,
    )


def share_on_circle_of(poses: Poses, symmetry: str) -> float:
    """That of the class whose particles lie most on a great circle; zero of classes with few particles."""
    best, is_there = poses.class_probability.argmax(dim=1), poses.junk <= JUNK_ABOVE
    of_classes = (poses.rotations[is_there & (best == c)] for c in range(poses.class_probability.shape[1]))
    enough = (rotations for rotations in of_classes if len(rotations) >= LEAST_TO_TELL)
    return max((share_on_circle(views_of(rotations, symmetry)) for rotations in enough), default=0.0)


def _finished(run: Run, env: Env, output: Path, observer: Observer) -> RunResult:
    assert isinstance(run.phase, FinalPasses)
    env = run.env_of(env)
    final, refined = run.phase.result(env), run.phase.refined
    settings = env.settings.model_copy(update={"symmetry": run.symmetry})
    junk, r_max = float(final.poses.junk.mean()), final.maps[0].halves.r_max
    if junk > WORTH_SAYING:
        message = f"About {junk:.0%} of the images count for little: noise, or an unknown object, explains them better"
        run = run.telling(env, [News(env.final_stage, r_max, message=message)])
        observer.after(run, env)
    if env.team.is_first:
        has_fits = run.optics is not None
        write_results(output, env.source.stack, settings, final, has_fitted_optics=has_fits)
    evidence = Evidence(
        starts=run.starts,
        spent_epochs=None if refined.converged else settings.epochs,
        symmetry=settings.symmetry,
        correlation=run.correlation,
        judged=run.judged,
        refined=refined.judged,
        gain_before=refined.gain_before,
        halves=[of_class.halves for of_class in final.maps],
        alike=run.alike,
        on_circle=share_on_circle_of(final.poses, settings.symmetry),
    )
    against = evidence.doubts()
    run = run.telling(env, [News(env.final_stage, r_max, 1.0, doubts=against)])
    observer.tell(run, env)
    if env.team.is_first:
        # What is left of them does no harm.
        with contextlib.suppress(UsageError):
            CheckpointFolder(output).remove()
    classes = [
        ClassResult(*places(output, number, settings.classes), of_class.halves, of_class.share)
        for number, of_class in enumerate(final.maps)
    ]
    return RunResult(
        output=output,
        classes=tuple(classes),
        particles_path=output / "particles.star",
        independent_halves=refined.independent,
        converged=refined.converged,
        doubts=against,
        judged=run.judged,
        starts=run.starts,
        seconds=run.seconds,
        settings=settings,
        optics=None if run.optics is None else run.optics.told(env.source.stack),
    )


def what_is_known(env: Env, contrast: Contrast, forecast: Forecast) -> list[str]:
    """What the user is told at first: what the particles are like, and how long the run will take."""
    source, stack = env.source, env.source.stack
    messages = [*stack.remarks(taken_over(env)), *told_of_initial(env)]
    if contrast.message is not None:
        messages.append(contrast.message)
    if source.preprocessor.untouched_px is not None:
        messages.append(told_of_mask(2 * source.preprocessor.untouched_px * stack.pixel_size_A))
    if source.dust_share > WORTH_SAYING and source.preprocessor.removes_dust:
        messages.append(
            f"Specks that stand out from the noise are blanked out, in about {source.dust_share:.0%} of the images"
        )
    if env.settings.is_short_of_memory:
        messages.append(
            f"Finer detail than {env.settings.max_resolution_A:.1f} Å would take more than the memory that is allowed; "
            "if the half maps agree to there, give more with --memory"
        )
    return [*messages, forecast_line(forecast, env.settings)]


def taken_over(env: Env) -> set[str]:
    """Columns of the particle file that the run begins with."""
    s = env.settings
    if s.initial == "random":
        return set()
    halves = set() if env.source.stack.halves is None else {HALF_COLUMN}
    return halves | (POSE_COLUMNS if s.initial == "poses" or s.search == "near" else set())


def told_of_initial(env: Env) -> Iterator[str]:
    """What a run begins with in place of random maps."""
    s = env.settings
    if s.initial == "random":
        return
    r_max = env.refined_from(len(s.stages_r_max) - 1)
    detail_A = env.length_A / r_max
    what = "the poses in the file" if s.initial == "poses" else f"{s.initial_map}"
    where = "near those of the file" if s.search == "near" else "everywhere"
    yield f"Begins with a map of {what}, to {detail_A:.1f} Å; poses are looked for {where}"
    if r_max > SEARCH_R_MAX and s.initial == "poses" and env.source.stack.halves is None:
        yield (
            "The file does not tell the half of each particle (rlnRandomSubset): half maps may agree by the noise that "
            f"its poses have learnt, to {detail_A:.1f} Å at least"
        )


def cache_of(output: Path, settings: Settings) -> PackedCache:
    """Where prepared images are kept; only the first process is sure to have the folder."""
    return PackedCache(settings.n_particles, settings.cache_bytes, output if output.is_dir() else None)


def forecast_line(forecast: Forecast, settings: Settings) -> str:
    """What the user is told before the work begins."""
    return f"Expected: {forecast}, and up to {settings.expected_bytes / GB:.1f} GB of memory"


def open_source(stack: ParticleStack, settings: Settings, among: Tensor | None = None) -> ParticleSource:
    """The particles of a stack, prepared as `settings` say; noise and contrast are estimated from those `among` (m,).

    Unless given these are the ones to train on.
    """
    if among is None:
        among = split_held_out(settings.n_particles, settings.held_out, settings.seed)[1]
    pixel_A = settings.pixel_size_A
    preprocessor = Preprocessor(
        settings.image_box, settings.diameter_A / pixel_A, settings.shift_extent_A / pixel_A, cut_to=settings.box
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
