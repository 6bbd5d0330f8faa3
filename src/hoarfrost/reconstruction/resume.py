"""The verb `resume`: a run that was stopped, or killed, goes on from its last checkpoint."""

import dataclasses
import time
from pathlib import Path

from hoarfrost.errors import FinishedError, ToldElsewhereError, UsageError
from hoarfrost.parallel.join import joined
from hoarfrost.parallel.launch import is_first, resume_command
from hoarfrost.parallel.team import Team
from hoarfrost.particles.contrast import Contrast
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.folder import RESULTS_ARE_THERE, has_finished, remove_leftovers
from hoarfrost.reconstruction.phases import Run
from hoarfrost.reconstruction.result import RunResult
from hoarfrost.reconstruction.run import Watching, begun, cache_of, carry_out, looked_through, open_source
from hoarfrost.reconstruction.same_run import check_data, check_fits, check_programs, check_settings
from hoarfrost.reconstruction.settings.options import CHECKPOINT_EVERY_S, ResumeOptions
from hoarfrost.reconstruction.settings.settings import Settings
from hoarfrost.reconstruction.state.store import Checkpoint, CheckpointFolder
from hoarfrost.reconstruction.state.tree import restored
from hoarfrost.reconstruction.watch.events import EventLog

BEGINS_AGAIN = "No checkpoint had been written yet: the run begins again"


def resume(output: Path, options: ResumeOptions) -> RunResult:
    """The verb `hoarfrost.resume`, which documents arguments and errors."""
    started, every_s = time.monotonic(), options.checkpoint_every_s
    settings = _read_settings(output)
    watching = Watching(options.progress, options.stop, CHECKPOINT_EVERY_S if every_s is None else every_s, started)
    with joined(settings.device, settings.threads) as team:
        return _resume(output, settings, team, watching, keeps_interval=every_s is None)


def _read_settings(output: Path) -> Settings:
    """Those that a run folder holds; of several processes with the same trouble the first one tells."""
    try:
        if not (output / "config.toml").is_file():
            raise UsageError(f"{output} holds no run that has begun: there is no config.toml in it")
        return Settings.of_toml(output / "config.toml")
    except UsageError as error:
        if is_first():
            raise
        raise ToldElsewhereError(error.exit_code) from error


def _resume(output: Path, settings: Settings, team: Team, watching: Watching, *, keeps_interval: bool) -> RunResult:
    last, complaints = CheckpointFolder(output).newest()
    team.agree(lambda: _check_unfinished(output, last))
    command = resume_command(output, settings.processes)
    team.agree(lambda: check_programs(settings, team.size, command))
    team.agree_on("none" if last is None else last.sums)
    stack = team.agree(lambda: ParticleStack.open(settings.particles, settings.datadir))
    began_with = settings if last is None else Settings.model_validate(last.facts["settings"])
    team.agree(lambda: _check_same(output, settings, began_with, last, stack) if team.is_first else None)
    stack = looked_through(stack, team, watching) if last is None else stack.with_copies(last.facts["data"]["copies"])
    source = team.agree(lambda: open_source(stack, began_with))
    contrast = _contrast(began_with)
    log = team.agree(lambda: _go_on_writing(output, last) if team.is_first else None)
    source = source.in_use(contrast.sign, cache_of(output, began_with))
    if last is None:
        watching = dataclasses.replace(watching, notes=(*complaints, BEGINS_AGAIN))
        env = Env(began_with, source, team, watching.started)
        return carry_out(begun(env, contrast), env, output, watching, log)
    run = restored(Run, last.state)
    every_s = last.facts["every_s"] if keeps_interval else watching.checkpoint_every_s
    watching = dataclasses.replace(watching, checkpoint_every_s=every_s, notes=(*complaints, _from_where(run)))
    env = Env(began_with, source, team, watching.started - run.seconds)
    return carry_out(run, env, output, watching, log, last)


def _check_unfinished(output: Path, last: Checkpoint | None) -> None:
    if has_finished(output, has_checkpoint=last is not None):
        raise FinishedError(f"The run in {output} has finished; there is nothing to go on with")


def _check_same(
    output: Path, settings: Settings, began_with: Settings, last: Checkpoint | None, stack: ParticleStack
) -> None:
    """Raise where particles or settings are not those that the run began with, as far as that is known."""
    if last is None:
        check_fits(settings, stack)
    else:
        has_results = (output / RESULTS_ARE_THERE).exists()
        check_settings(output / "config.toml", began_with, settings, has_results=has_results)
        check_data(last.facts["data"], stack)


def _contrast(settings: Settings) -> Contrast:
    assert settings.contrast != "auto"
    assert settings.contrast_z is not None
    # What images do not show, somebody has said.
    is_chosen = Contrast.decide("auto", settings.contrast_z).name != settings.contrast
    return Contrast(settings.contrast, settings.contrast_z, is_chosen)


def _go_on_writing(output: Path, last: Checkpoint | None) -> EventLog:
    """The log as it was at the checkpoint, which no other process writes; nothing else is left of what came after."""
    log = EventLog(output / "events.jsonl", 0 if last is None else last.facts["events_bytes"])
    CheckpointFolder(output).remove(newer_than=-1 if last is None else last.number)
    remove_leftovers(output)
    return log


def _from_where(run: Run) -> str:
    if run.tally.iteration == 0:
        return BEGINS_AGAIN
    return f"Going on from the checkpoint after iteration {run.tally.iteration}, {run.seconds:.0f} s into the run"
