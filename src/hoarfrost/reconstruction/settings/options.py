"""Every setting of a run, checked, with the values that were chosen where the user chose none."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from hoarfrost.errors import DataError, UsageError
from hoarfrost.optim.names import MethodName
from hoarfrost.optim.registry import METHODS
from hoarfrost.particles.contrast import CONTRASTS, Contrast, ContrastChoice
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.estimate.folds import FOLDS
from hoarfrost.reconstruction.settings.memory import default_budget, parse_memory, plan_memory
from hoarfrost.reconstruction.settings.provenance import Source, sources_of
from hoarfrost.symmetry.point_group import PointGroup

# Fourier pixels. A map of a few resolution elements across settles from a random start in a minute.
FIRST_R_MAX = 6.0
STAGE_FACTOR = 1.24
# Exact sums over all poses cost about r_max⁶; beyond the second number also more memory than a laptop has.
DEFAULT_LAST_EXACT_R_MAX = 11.4
LARGEST_EXACT_R_MAX = 14.0
# Refinement takes longer steps; beyond the second number its grids would take the run past 2 GB.
REFINING_FACTOR = 1.33
LARGEST_REFINED_R_MAX = 36.0
DEFAULT_DIAMETER = 0.85  # of the box
DEFAULT_SHIFT_SIGMA = 0.03  # of the box, per axis
SMALLEST_BOX = 16
FEWEST_PARTICLES = 20

MINIBATCH, LEAST_MINIBATCH = 100, 25
HELD_OUT = 100
# Random starts, unless two agree before.
MOST_STARTS = 4
# Time grows with their number twice: each image is compared with all, and each needs as many images.
MOST_CLASSES = 10


@dataclass(frozen=True)
class Options:
    """What the user asked for; None means: choose from the data. Lengths are in Å."""

    seed: int = 0
    classes: int = 1
    starts: int | None = None
    max_resolution_A: float | None = None
    diameter_A: float | None = None
    symmetry: str = "C1"
    method: MethodName = "auto"
    epochs: float | None = None
    batch_size: int | None = None
    shift_sigma_A: float | None = None
    shift_extent_A: float | None = None
    device: str = "auto"
    threads: int | None = None
    held_out: int | None = None
    rotate_grid: bool = False
    memory: str | None = None
    contrast: ContrastChoice = "auto"

    @property
    def finds_symmetry(self) -> bool:
        """Whether the point group is to be found out."""
        return self.symmetry.strip().lower() == "auto"

    @property
    def given(self) -> set[str]:
        """The options that have another value than the default."""
        return {option.name for option in fields(self) if getattr(self, option.name) != option.default}

    def check(self) -> None:
        """Raise UsageError for a value that makes no sense whatever the data."""
        if self.method not in get_args(MethodName):
            raise UsageError(f"method must be one of {', '.join(get_args(MethodName))}, found {self.method}")
        if not self.finds_symmetry:
            PointGroup(self.symmetry)
        elif self.method != "auto" or self.classes > 1:
            raise UsageError("--symmetry auto needs the method auto and a single class; name the point group instead")
        if self.contrast not in CONTRASTS:
            raise UsageError(f"contrast must be auto, white or black, found {self.contrast}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"device must be auto, cpu or cuda, found {self.device}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("device cuda was asked for, but PyTorch finds no CUDA GPU; leave out --device")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must lie between 0 and 2⁶³ − 1, found {self.seed}")
        positive = {
            "max-resolution": self.max_resolution_A,
            "diameter": self.diameter_A,
            "epochs": self.epochs,
            "shift-extent": self.shift_extent_A,
        }
        for name, value in positive.items():
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"--{name} must be a positive number, found {value:g}")
        if self.shift_sigma_A is not None and not (self.shift_sigma_A >= 0 and math.isfinite(self.shift_sigma_A)):
            raise UsageError(f"--shift-sigma must be zero or positive, in Å, found {self.shift_sigma_A:g}")
        if self.classes > 1 and self.method != "auto":
            raise UsageError(f"several classes need the method auto, found {self.method}")
        if self.classes > MOST_CLASSES:
            raise UsageError(f"--classes must be at most {MOST_CLASSES}, found {self.classes}")
        counts = {
            "classes": self.classes,
            "starts": self.starts,
            "batch-size": self.batch_size,
            "threads": self.threads,
            "held-out": self.held_out,
        }
        for name, count in counts.items():
            if count is not None and count < 1:
                raise UsageError(f"--{name} must be at least 1, found {count}")
        if self.memory is not None:
            parse_memory(self.memory)


class Settings(BaseModel):
    """The resolved settings of one run; written to config.toml.

    `contrast` is auto only until the images have been looked at, and `contrast_z` None: see `with_contrast`. `symmetry`
    is auto only until the map has been looked at. `sources` tells where each value comes from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    particles: str
    output: str
    datadir: str | None
    seed: int
    classes: int
    starts: int
    until_two_agree: bool
    method: MethodName
    symmetry: str
    contrast: ContrastChoice
    contrast_z: float | None
    max_resolution_A: float
    diameter_A: float
    shift_sigma_A: float
    shift_extent_A: float
    batch_size: int
    held_out: int
    epochs: float | None
    device: str
    threads: int
    processes: int
    rotate_grid: bool
    memory_bytes: int
    expected_bytes: int
    cache_bytes: int
    box: int
    pixel_size_A: float
    n_particles: int
    stages_r_max: tuple[float, ...]
    refined_r_max: tuple[float, ...]
    version: str
    torch_version: str
    sources: dict[str, Source]

    def with_contrast(self, contrast: Contrast) -> Settings:
        """The same settings with the contrast that was found, or asked for."""
        return self.model_copy(update={"contrast": contrast.name, "contrast_z": contrast.z})

    @classmethod
    def of_toml(cls, path: Path) -> Settings:
        """What `to_toml` wrote into a file. Raises UsageError for one that it did not write."""
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls.model_validate({name: found.pop(name, None) for name in cls.model_fields} | found)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
        except (tomllib.TOMLDecodeError, ValidationError) as error:
            what = error.errors()[0] if isinstance(error, ValidationError) else None
            told = str(error) if what is None else f"{'.'.join(map(str, what['loc']))}: {what['msg']}"
            raise UsageError(f"{path} is not as a run wrote it ({told})") from error

    def to_toml(self) -> str:
        """TOML text, one key a line, with the sources in a table at its end; a setting that is None is left out."""
        lines = ["# hoarfrost reconstruct: every setting with its resolved value; lengths in Å"]
        lines += _toml_lines(self.model_dump(exclude={"sources"}))
        lines += ["", "# where each value comes from", "[sources]", *_toml_lines(self.sources)]
        return "\n".join(lines) + "\n"


def _toml_lines(values: Mapping[str, object]) -> list[str]:
    """TOML's strings, numbers, booleans and arrays are written as JSON writes them."""
    return [f"{name} = {json.dumps(v, ensure_ascii=False)}" for name, v in values.items() if v is not None]


def resolve(
    stack: ParticleStack,
    options: Options,
    *,
    output: Path,
    datadir: str | None,
    version: str,
    processes: int = 1,
) -> Settings:
    """Choose what was left open, from the data.

    Raises UsageError for a value that the data cannot meet, DataError for data too small to use.
    """
    path, n, box = stack.table.star.path, stack.n_images, stack.box
    diameter_A, held_out, batch_size = options.diameter_A, options.held_out, options.batch_size
    shift_sigma_A, shift_extent_A, device = options.shift_sigma_A, options.shift_extent_A, options.device
    length_A = box * stack.pixel_size_A
    if box < SMALLEST_BOX:
        raise DataError(path, expected=f"a box of {SMALLEST_BOX} pixels or more", found=f"{box}")
    if n < FEWEST_PARTICLES:
        raise DataError(path, expected=f"at least {FEWEST_PARTICLES} particles", found=f"{n}")
    if diameter_A is None:
        diameter_A = DEFAULT_DIAMETER * length_A
    elif diameter_A > length_A:
        raise UsageError(f"--diameter {diameter_A:g} Å exceeds the box of {length_A:.1f} Å")
    held_out = min(HELD_OUT, n // 5) if held_out is None else held_out
    if held_out > n // 2:
        raise UsageError(
            f"{path}: --held-out {held_out} leaves too few of {n} particles to train on; hold out at most {n // 2}"
        )
    usual = METHODS[options.method].batch_size if options.method in METHODS else MINIBATCH
    if batch_size is None:
        training = n - held_out
        # Few particles are to make several folds.
        of_a_fold = max(LEAST_MINIBATCH, training // FOLDS) if options.method == "auto" else usual
        batch_size = min(usual, of_a_fold, training)
    elif batch_size > n - held_out:
        raise UsageError(f"{path}: --batch-size {batch_size} exceeds the {n - held_out} particles to train on")
    shift_sigma_A = DEFAULT_SHIFT_SIGMA * length_A if shift_sigma_A is None else shift_sigma_A
    if shift_extent_A is None:
        shift_extent_A = min(3 * shift_sigma_A, length_A / 4)
    elif shift_extent_A > length_A / 4:
        raise UsageError(f"--shift-extent {shift_extent_A:g} Å exceeds a quarter of the box, {length_A / 4:.1f} Å")
    stages, refined = _bands(box, length_A, options.max_resolution_A, refines=options.method == "auto")
    budget = None if options.memory is None else parse_memory(options.memory)
    plan = plan_memory(
        box=box,
        n_particles=n,
        stages_r_max=stages,
        refined_r_max=refined,
        budget=budget,
        classes=options.classes,
    )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    besides = {"datadir": datadir is not None, "processes": processes > 1}
    given = options.given.union(name for name, is_given in besides.items() if is_given)
    from_data = {
        "symmetry": options.finds_symmetry,
        "batch_size": options.batch_size is None and batch_size != usual,
        "held_out": options.held_out is None and held_out != HELD_OUT,
    }
    return Settings(
        # So that the run can be resumed from any folder.
        particles=os.path.abspath(path),
        output=str(output),
        datadir=None if datadir is None else os.path.abspath(datadir),
        seed=options.seed,
        classes=options.classes,
        starts=MOST_STARTS if options.starts is None else options.starts,
        until_two_agree=options.starts is None,
        method=options.method,
        symmetry="auto" if options.finds_symmetry else PointGroup(options.symmetry).name,
        contrast=options.contrast,
        contrast_z=None,
        max_resolution_A=length_A / (stages + refined)[-1],
        diameter_A=diameter_A,
        shift_sigma_A=shift_sigma_A,
        shift_extent_A=shift_extent_A,
        batch_size=batch_size,
        held_out=held_out,
        epochs=options.epochs,
        device=device,
        threads=options.threads or torch.get_num_threads(),
        processes=processes,
        rotate_grid=options.rotate_grid,
        memory_bytes=max(plan.needed_bytes, default_budget()) if budget is None else budget,
        expected_bytes=plan.expected_bytes,
        cache_bytes=plan.cache_bytes,
        box=box,
        pixel_size_A=stack.pixel_size_A,
        n_particles=n,
        stages_r_max=stages,
        refined_r_max=refined,
        version=version,
        torch_version=torch.__version__,
        sources=sources_of(given, [name for name, is_from_data in from_data.items() if is_from_data]),
    )


def _bands(
    box: int, length_A: float, max_resolution_A: float | None, *, refines: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Band limits in Fourier pixels, to the finest that was asked for: of sums over all poses, and of refinement.

    Both begin at the first; a run goes over from the one to the other as soon as the images know their poses.
    """
    nyquist = box / 2 - 1
    largest = min(LARGEST_REFINED_R_MAX if refines else LARGEST_EXACT_R_MAX, nyquist)
    last = largest if refines else min(DEFAULT_LAST_EXACT_R_MAX, nyquist)
    if max_resolution_A is not None:
        last = length_A / max_resolution_A
        if last > largest + 1e-9:
            raise UsageError(
                f"--max-resolution {max_resolution_A:g} Å is finer than {'refinement' if refines else 'this method'} "
                f"can reach with this box; the finest is {length_A / largest:.1f} Å"
            )
        if last < 2:
            raise UsageError(
                f"--max-resolution {max_resolution_A:g} Å is coarser than half the box, {length_A / 2:.1f} Å"
            )
    first = min(FIRST_R_MAX, last)
    exact_last = min(last, DEFAULT_LAST_EXACT_R_MAX) if refines else last
    return (first, *_steps(first, exact_last, STAGE_FACTOR)), _steps(first, last, REFINING_FACTOR) if refines else ()


def _steps(first: float, last: float, factor: float) -> tuple[float, ...]:
    """Band limits from above the first to the last, in even ratios of about `factor`; none where they are the same."""
    if last < first * 1.001:
        return ()
    n = max(1, round(math.log(last / first) / math.log(factor)))
    return tuple(round(first * (last / first) ** ((i + 1) / n), 3) for i in range(n))
