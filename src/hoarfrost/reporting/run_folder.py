"""What there is in the folder of a run: finished, still going or stopped midway."""

import json
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hoarfrost.errors import DataError, UsageError
from hoarfrost.evaluation.local_resolution import Spread, read_spread
from hoarfrost.evaluation.views import Views, has_views, read_views
from hoarfrost.io.fsc_star import FscCurves, read_fsc
from hoarfrost.io.guinier_star import read_b_factor_A2
from hoarfrost.io.star import read_star
from hoarfrost.io.star_columns import Floats, Integers, float_column, integer_column
from hoarfrost.io.star_optics import particle_table

NEEDED = (
    "particles",
    "classes",
    "image_box",
    "pixel_size_A",
    "n_particles",
    "stages_r_max",
    "refined_r_max",
    "version",
)

EVENT = {"start", "stage", "r_max", "resolution_A", "batch_nll", "nll", "nll_standard_error", "nll_gain", "seconds",
         "image_gradients", "fraction_done", "message"}  # fmt: skip


@dataclass(frozen=True)
class Structure:
    """One of the structures of a run, `finished` or as it stands. `folder` has its map and what belongs to it.

    While a run goes on, a structure has no `curves` and no `views`. Raises DataError for a file that cannot be read.
    """

    number: int
    folder: Path
    finished: bool

    @property
    def has_map(self) -> bool:
        """Whether there is a map yet."""
        return (self.folder / "map.mrc").is_file()

    @cached_property
    def curves(self) -> FscCurves | None:
        """The FSC of the half maps."""
        return read_fsc(self.folder / "fsc.star") if self.finished else None

    @cached_property
    def b_factor_A2(self) -> float | None:
        """The B-factor of the sharpened map, None where there is no such map."""
        path = self.folder / "guinier.star"
        return read_b_factor_A2(path) if self.finished and path.is_file() else None

    @cached_property
    def local(self) -> Spread | None:
        """How the local resolution differs within the particle, None where it is not known."""
        return read_spread(self.folder) if self.finished else None

    @cached_property
    def views(self) -> Views | None:
        """The views of the particles that show this structure; None also where there are none."""
        return read_views(self.folder) if self.finished and has_views(self.folder) else None


@dataclass(frozen=True)
class Particles:
    """What particles.star tells of n particles: `junk` (n,), the probability of being junk, and their classes.

    `classes` (n,), from 0, is the most probable one, and `shares` (C,) the mean class probabilities.
    """

    junk: Floats
    classes: Integers
    shares: Floats


@dataclass(frozen=True)
class RunFolder:
    """A run as its folder tells it.

    `settings` and their `sources` are those of config.toml; `events` the records of events.jsonl; `starts`, what came
    of several random starts, and `state`, what stands of a run that is not `finished`, are None where there is no such.
    """

    path: Path
    settings: dict[str, Any]
    sources: dict[str, str]
    events: list[dict[str, Any]]
    starts: dict[str, Any] | None
    state: dict[str, Any] | None
    structures: list[Structure]

    @property
    def finished(self) -> bool:
        """Whether the results are there."""
        return all(structure.finished for structure in self.structures)

    @property
    def doubts(self) -> list[str]:
        """What speaks against the maps of a run that has ended."""
        return [told for event in self.events[-1:] for told in event.get("doubts", [])]

    @cached_property
    def particles(self) -> Particles | None:
        """What a finished run says of its particles, if anything. Raises DataError for a file that cannot be read."""
        path = self.path / "particles.star"
        return _particles(path, len(self.structures)) if self.finished and path.is_file() else None

    @property
    def begins_at_random(self) -> bool:
        """Whether the run began with random maps, and not with poses or a map that were given."""
        return bool(self.settings.get("initial", "random") == "random")

    @property
    def length_A(self) -> float:
        """The length of the images and maps in Å."""
        return float(self.settings["image_box"] * self.settings["pixel_size_A"])

    @property
    def judged(self) -> list[dict[str, Any]]:
        """The events at which held-out particles were compared with the map."""
        return [event for event in self.events if event["nll"] is not None]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The events at which the map took a step."""
        return [event for event in self.events if event["batch_nll"] is not None]

    @property
    def has_refined(self) -> bool:
        """Whether halves were refined apart, so far."""
        return any(event["stage"] >= len(self.settings["stages_r_max"]) for event in self.steps)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The events that carry a message."""
        return [event for event in self.events if event["message"] is not None]


def read_run(folder: str | Path) -> RunFolder:
    """Read a run's folder, which another process may be writing to.

    Raises UsageError for a folder that is none of a run, DataError for files that cannot be read.
    """
    folder = Path(folder)
    config = folder / "config.toml"
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give the folder that hoarfrost reconstruct wrote")
    if not config.is_file():
        raise UsageError(f"{folder} is not the folder of a run: it has no config.toml; give what reconstruct wrote")
    if not (folder / "events.jsonl").is_file():
        hint = f"; give {folder.parent}" if (folder.parent / "config.toml").is_file() else ""
        raise UsageError(f"{folder} is not the folder of a run: it has no events.jsonl{hint}")
    settings = _settings(config)
    sources = settings.pop("sources", {})
    n = settings["classes"]
    return RunFolder(
        folder,
        settings,
        sources,
        _events(folder / "events.jsonl"),
        _record(folder / "starts.json"),
        _record(folder / "live" / "state.json"),
        [_structure(folder, number, n) for number in range(n)],
    )


def _structure(run: Path, number: int, classes: int) -> Structure:
    final, live = (folder if classes == 1 else folder / f"class{number + 1:03d}" for folder in (run, run / "live"))
    # Written last, of those that belong to a structure.
    if (final / "fsc.star").is_file():
        return Structure(number, final, finished=True)
    return Structure(number, live, finished=False)


def _particles(path: Path, classes: int) -> Particles:
    table = particle_table(read_star(path))
    junk = float_column(path, table, "hoarfrostJunkProbability", default=0.0)
    if classes == 1:
        return Particles(junk, np.zeros(len(junk), np.int64), np.ones(1))
    columns = [float_column(path, table, f"hoarfrostClassProbability{number + 1}") for number in range(classes)]
    shares = np.array([column.mean() for column in columns])
    return Particles(junk, integer_column(path, table, "rlnClassNumber") - 1, shares)


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(path, expected="TOML, as reconstruct writes it", found=str(error)) from error
    missing = [name for name in NEEDED if name not in settings]
    if missing:
        raise DataError(path, expected=f"the settings of a run, {missing[0]} among them", found="no such setting")
    return settings


def _events(path: Path) -> list[dict[str, Any]]:
    """Every record; the last line may still be in writing."""
    events: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for row, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
            if not (isinstance(event, dict) and event.keys() >= EVENT):
                raise ValueError("another record")
        except ValueError as error:
            if row == len(lines):
                break
            raise DataError(path, row=row, expected="an event of a run", found=line[:60]) from error
        events.append(event)
    return events


def _record(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(path, expected="JSON, as reconstruct writes it", found=str(error)) from error
    return record
