"""The folder of a run: checked and emptied before the work, and filled with the results after it.

A run for one structure keeps its files in the folder itself. Of several, each has a folder like it, class001 and so on,
with the particles that show it, and its map beside that folder, class001.mrc.
"""

import contextlib
import dataclasses
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
from torch import Tensor

from hoarfrost.errors import UsageError
from hoarfrost.evaluation.local_resolution import FILE as LOCAL_RESOLUTION
from hoarfrost.evaluation.local_resolution import LEAST_R_MAX, local_resolution
from hoarfrost.evaluation.sharpen import sharpen
from hoarfrost.io.aberrations_star import AberrationTable
from hoarfrost.io.atomic import is_leftover, is_of_job, write_text_atomically, writing_to
from hoarfrost.io.columns import HALF_COLUMN, SIGN_COLUMN
from hoarfrost.io.fitted_star import with_fitted_optics
from hoarfrost.io.folders import check_output as check_folder
from hoarfrost.io.fsc_star import COLUMNS, FscCurves, write_fsc
from hoarfrost.io.guinier_star import GuinierCurves, write_guinier
from hoarfrost.io.mrc import write_volume
from hoarfrost.io.noise_star import NoiseSpectra, write_noise
from hoarfrost.io.particles_star import ParticleTable
from hoarfrost.io.posed_star import write_posed_particles
from hoarfrost.io.reslog_star import NAME as RESLOG
from hoarfrost.io.reslog_star import write_reslog
from hoarfrost.maths.fourier import centred_window
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.refinement.final_passes import ClassMaps, FinalMaps
from hoarfrost.reconstruction.result import SHARPENED
from hoarfrost.reconstruction.settings.settings import Settings
from hoarfrost.reconstruction.state.store import FOLDER as CHECKPOINTS
from hoarfrost.reconstruction.state.store import CheckpointFolder
from hoarfrost.reconstruction.watch.events import EventLog
from hoarfrost.reconstruction.watch.live import FOLDER as LIVE
from hoarfrost.reconstruction.watch.live import class_folder
from hoarfrost.reconstruction.watch.matches import Matches, write_matches

# What a run folder may hold, pictures included: --overwrite replaces these and refuses a folder that holds others.
FILES = (
    "map.mrc", "map_sharpened.mrc", "guinier.star", "local_resolution.mrc", "reslog.star", "view.cxc", "half1.mrc",
    "half2.mrc", "mask.mrc", "fsc.star", "particles.star", "matches.star", "matches.mrcs", "noise.star",
    "starts.json", "events.jsonl", "config.toml", "state.json", "slices.png", "matches.png", "fsc.png",
    "orientations.png", "report.html",
)  # fmt: skip
# The last result to be written.
RESULTS_ARE_THERE = "particles.star"
_CLASS = re.compile(r"class[0-9]{3}(\.mrc)?")


def places(output: Path, number: int, classes: int) -> tuple[Path, Path]:
    """The folder and the map of class `number`, from 0, of a run for so many classes."""
    if classes == 1:
        return output, output / "map.mrc"
    folder = class_folder(output, number, classes)
    return folder, output / f"{folder.name}.mrc"


def check_output(output: Path, overwrite: bool) -> None:
    """Raise UsageError where the folder exists, unless it may be replaced and holds only what a run wrote.

    What RELION or a scheduler puts there beforehand is no hindrance, and stays.
    """
    hint = ""
    if (output / CHECKPOINTS).is_dir():
        hint = f", or go on with the run in it: hoarfrost resume {shlex.quote(str(output))}"
    check_folder(output, overwrite, _others, command="reconstruct", hint=hint)


def prepare_output(output: Path, settings: Settings, noise: NoiseSpectra) -> EventLog:
    """Make the folder, or empty it of what an earlier run left: an old map must not pass for the new run's.

    Writes the settings and the spectra of the noise, and opens the log. Raises UsageError where that cannot be done.
    """
    with writing_to(output):
        output.mkdir(parents=True, exist_ok=True)
        # Without its settings there is no old run to go on with, whatever else is left of it where this ends early.
        (output / "config.toml").unlink(missing_ok=True)
        CheckpointFolder(output).remove()
        remove_leftovers(output)
        _empty(output)
        free = shutil.disk_usage(output).free
    if free < (needed := _results_bytes(settings)):
        told = f"{free / 1e6:.0f} MB are left on the disk, and the results take {needed / 1e6:.0f} MB"
        raise UsageError(f"cannot write {output}: {told}")
    write_text_atomically(output / "config.toml", settings.to_toml())
    write_noise(output / "noise.star", noise)
    return EventLog(output / "events.jsonl")


def _results_bytes(settings: Settings) -> int:
    """What the results take at least: maps, matches, and the particles' rows."""
    with contextlib.suppress(OSError):
        rows = Path(settings.particles).stat().st_size
        return settings.classes * 4 * (6 * settings.image_box**3 + 8 * settings.image_box**2) + rows
    return 0


def remove_leftovers(output: Path) -> None:
    """Remove what a process that was killed while it wrote has left of its files. Raises OSError."""
    for folder in (output, *(path for path in output.iterdir() if _CLASS.fullmatch(path.name) and path.is_dir())):
        for path in folder.iterdir():
            if is_leftover(path.name):
                path.unlink(missing_ok=True)


def has_finished(output: Path, *, has_checkpoint: bool) -> bool:
    """Whether the run in a folder has come to its end: results are there, and no checkpoint to go on from."""
    return (output / RESULTS_ARE_THERE).exists() and not has_checkpoint


def write_results(
    output: Path, stack: ParticleStack, settings: Settings, final: FinalMaps, *, has_fitted_optics: bool = False
) -> None:
    """Write the maps, how well their halves agree, the particles, and the settings with what was found out since."""
    found, table = final.poses, _fitted_table(stack) if has_fitted_optics else stack.table
    best = found.class_probability.argmax(dim=1)
    columns = {
        "rlnMaxValueProbDistribution": found.probability.numpy(),
        "rlnLogLikeliContribution": found.log_evidence.numpy(),
        "hoarfrostJunkProbability": found.junk.numpy(),
        HALF_COLUMN: (final.half + 1).numpy(),
    }
    if settings.contrast == "black":
        columns[SIGN_COLUMN] = -stack.table.signs.astype(np.int64)
    if settings.classes > 1:
        columns["rlnClassNumber"] = (best + 1).numpy()
        for number, probability in enumerate(found.class_probability.unbind(1)):
            columns[f"hoarfrostClassProbability{number + 1}"] = probability.numpy()
    poses = found.rotations.numpy(), found.shifts_A.numpy()
    for number, of_class in enumerate(final.maps):
        folder, map_path = places(output, number, settings.classes)
        folder.mkdir(parents=True, exist_ok=True)  # the run's own too, should somebody have removed it
        rows = (best == number).nonzero().squeeze(1)
        if len(rows):
            own = Matches(rows, best[rows], found.rotations[rows], found.shifts_A[rows], found.probability[rows])
            write_matches(folder, stack, own.typical())
        _write_maps(folder, of_class, settings)
        if settings.classes > 1:
            _write_map(map_path, of_class.volume, settings)
            if len(rows):
                write_posed_particles(folder / "particles.star", table, *poses, columns, rows.numpy())
            write_text_atomically(folder / "config.toml", settings.to_toml())
    write_posed_particles(output / RESULTS_ARE_THERE, table, *poses, columns)
    write_text_atomically(output / "config.toml", settings.to_toml())
    remove_live(output)


def _fitted_table(stack: ParticleStack) -> ParticleTable:
    """The rows of the stack's file with the optics that the stack has."""
    ctf, aberrations = stack.ctf, stack.aberrations
    defocus = {
        "rlnDefocusU": ctf.defocus_u_A.numpy(),
        "rlnDefocusV": ctf.defocus_v_A.numpy(),
        "rlnDefocusAngle": ctf.defocus_angle_deg.numpy(),
    }
    fitted = {field.name: getattr(aberrations, field.name).numpy() for field in dataclasses.fields(aberrations)}
    matrices = stack.magnification.matrices[stack.magnification.group].numpy()
    return with_fitted_optics(stack.table, defocus, AberrationTable(**fitted), matrices)


def _write_maps(folder: Path, maps: ClassMaps, settings: Settings) -> None:
    halves = maps.halves
    named = {
        "map.mrc": maps.volume,
        "half1.mrc": maps.half_volumes[0],
        "half2.mrc": maps.half_volumes[1],
        "mask.mrc": halves.mask,
    }
    for name, volume in named.items():
        _write_map(folder / name, volume, settings)
    curves = FscCurves(
        **{name: getattr(halves, name).numpy() for name in COLUMNS},
        length_A=settings.box * settings.pixel_size_A,
        resolution_A=halves.resolution_A,
        band_limit_A=halves.band_limit_A,
    )
    write_fsc(folder / "fsc.star", curves)
    n_particles, resolution_A = maps.by_number.numpy().T
    write_reslog(folder / RESLOG, n_particles, resolution_A, halves.band_limit_A)
    if halves.r_max >= LEAST_R_MAX:
        local_A = local_resolution(*maps.half_volumes, settings.pixel_size_A, halves.r_max)
        # Where images were cut off, nothing is known either.
        coarsest_A = local_A.max()
        whole_A = centred_window(local_A - coarsest_A, settings.image_box) + coarsest_A
        write_volume(folder / LOCAL_RESOLUTION, whole_A.numpy(), settings.pixel_size_A)
    sharpened = sharpen(*maps.half_volumes, halves)
    if sharpened is not None:
        _write_map(folder / SHARPENED, sharpened.volume, settings)
        line = sharpened.guinier
        by_shell = {name: getattr(line, name).numpy() for name in ("squared", "log_amplitude", "weighted")}
        plot = GuinierCurves(**by_shell, intercept=line.intercept, b_factor_A2=line.b_factor_A2)
        write_guinier(folder / "guinier.star", plot)


def _write_map(path: Path, volume: Tensor, settings: Settings) -> None:
    """A map in the box of the images, as other programs expect it."""
    whole = centred_window(volume, settings.image_box)
    write_volume(path, whole.numpy().astype(np.float32), settings.pixel_size_A)


def remove_live(output: Path) -> None:
    """Remove what showed how things stood while the run went on."""
    live = output / LIVE
    if live.is_dir():
        _empty(live)
        with contextlib.suppress(OSError):  # where somebody put a file of theirs
            live.rmdir()


def _empty(folder: Path) -> None:
    """Remove what a run wrote into a folder, and the folders of a run in it."""
    for path in [*folder.iterdir()]:
        if _is_folder_of_run(path):
            _empty(path)
            path.rmdir()
        elif path.name in FILES or _CLASS.fullmatch(path.name):
            path.unlink()


def _others(folder: Path) -> list[Path]:
    """What no run wrote."""
    found: list[Path] = []
    for path in folder.iterdir():
        if is_of_job(path.name):
            continue
        if path.name == CHECKPOINTS and path.is_dir():
            found += CheckpointFolder(folder).others()
        elif _is_folder_of_run(path):
            found += _others(path)
        elif path.name not in FILES and not (_CLASS.fullmatch(path.name) and path.is_file()):
            found.append(path)
    return found


def _is_folder_of_run(path: Path) -> bool:
    return path.is_dir() and bool(path.name == LIVE or _CLASS.fullmatch(path.name))
