"""What a run does with its options: what is refused, and what is chosen where the user left it open."""

import math
import os
from pathlib import Path

import torch
from scipy.fft import next_fast_len

from hoarfrost._version import __version__
from hoarfrost.errors import DataError, UsageError
from hoarfrost.optim.registry import METHODS
from hoarfrost.parallel.threads import cores
from hoarfrost.particles.outline import measure_diameter_A
from hoarfrost.particles.preprocess import MASK_EDGE_PX
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.estimate.folds import FOLDS
from hoarfrost.reconstruction.schedule import LEAST_GROWTH, last_stage_of_starts
from hoarfrost.reconstruction.settings.initial import Initial
from hoarfrost.reconstruction.settings.memory import Size, affordable_r_max, default_budget, parse_memory, plan_memory
from hoarfrost.reconstruction.settings.options import Options, RecordedOptions
from hoarfrost.reconstruction.settings.provenance import sources_of
from hoarfrost.reconstruction.settings.settings import Settings
from hoarfrost.reconstruction.settings.supports import DEFAULT_DIAMETER
from hoarfrost.symmetry.point_group import PointGroup

# Fourier pixels. A map of a few resolution elements across settles from a random start in a minute.
FIRST_R_MAX = 6.0
STAGE_FACTOR = 1.24
# Exact sums over all poses cost about r_max⁶; beyond the second number also more memory than a laptop has.
DEFAULT_LAST_EXACT_R_MAX = 11.4
LARGEST_EXACT_R_MAX = 14.0
# Refinement takes longer steps.
REFINING_FACTOR = 1.33
# Of the diameter that images show: the mask is to lose nothing of a particle.
ROOM = 1.1
DEFAULT_SHIFT_SIGMA = 0.03  # of the box, per axis
SMALLEST_BOX = 16
FEWEST_PARTICLES = 20

# Fourier pixels of the map that refinement begins with: any coarser, it is a ball.
LEAST_INITIAL_R_MAX = 3.0
RANDOM = Initial()

MINIBATCH, LEAST_MINIBATCH = 100, 25
HELD_OUT = 100
# Random starts, unless two agree before.
MOST_STARTS = 4


def check(options: Options) -> None:
    """Raise UsageError for options that make no sense whatever the data, and that no bounds of one field refuse."""
    if not options.finds_symmetry:
        PointGroup(options.symmetry)
    elif options.method != "auto" or options.classes > 1:
        raise UsageError("--symmetry auto needs the method auto and a single class; name the point group instead")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda was asked for, but PyTorch finds no CUDA GPU; leave out --device")
    if options.classes > 1 and options.method != "auto":
        raise UsageError(f"several classes need the method auto, found {options.method}")
    if options.memory is not None:
        parse_memory(options.memory)


def resolve(
    stack: ParticleStack,
    options: Options,
    *,
    output: Path,
    processes: int = 1,
    cuts: bool = True,
    initial: Initial = RANDOM,
) -> Settings:
    """Choose what was left open, from the data. The run works on the middle of the images where `cuts`.

    Raises UsageError for a value that the data cannot meet, DataError for data too small to use.
    """
    path, n, image_box = stack.table.star.path, stack.n_images, stack.box
    if image_box < SMALLEST_BOX:
        raise DataError(path, expected=f"a box of {SMALLEST_BOX} pixels or more", found=f"{image_box}")
    if n < FEWEST_PARTICLES:
        raise DataError(path, expected=f"at least {FEWEST_PARTICLES} particles", found=f"{n}")
    lengths_A = _lengths(options, stack, initial)
    box = _working_box(stack, lengths_A) if cuts else image_box
    length_A = box * stack.pixel_size_A
    held_out, batch_size, usual = _counts(options, n, path)
    budget = None if options.memory is None else parse_memory(options.memory)
    # A symmetry that is yet to be found may be one whose averages need the whole box.
    group = None if options.finds_symmetry else PointGroup(options.symmetry)
    size = Size(box, n, options.classes, lengths_A["diameter_A"] / length_A, group)
    affordable = affordable_r_max(size, exact_r_max=DEFAULT_LAST_EXACT_R_MAX, budget=budget)
    stages, refined = _bands(box, length_A, options.max_resolution_A, affordable if options.method == "auto" else None)
    if initial.kind != "random":
        stages = stages[: last_stage_of_starts(stages, refined) + 1]
    bands = {"stages_r_max": stages, "refined_r_max": refined}
    plan = plan_memory(size, **bands, budget=budget)
    from_data = {
        "symmetry": options.finds_symmetry,
        "batch_size": options.batch_size is None and batch_size != usual,
        "held_out": options.held_out is None and held_out != HELD_OUT,
    }
    resolved = {
        # Absolute, so that the run can be resumed from any folder.
        "particles": os.path.abspath(path),
        "output": str(output),
        "datadir": None if options.datadir is None else os.path.abspath(options.datadir),
        "initial": initial.kind,
        "initial_map": initial.map_path,
        "initial_r_max": _initial_r_max(initial, stages, refined, length_A),
        "search": initial.search,
        "starts": MOST_STARTS if options.starts is None else options.starts,
        "until_two_agree": options.starts is None,
        "symmetry": "auto" if options.finds_symmetry else PointGroup(options.symmetry).name,
        "contrast_z": None,
        "max_resolution_A": length_A / (stages + refined)[-1],
        "batch_size": batch_size,
        "held_out": held_out,
        "device": ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device,
        "threads": options.threads or cores(),
        "processes": processes,
        "memory_bytes": max(plan.needed_bytes, default_budget()) if budget is None else budget,
        "expected_bytes": plan.expected_bytes,
        "cache_bytes": plan.cache_bytes,
        "box": box,
        "image_box": image_box,
        "pixel_size_A": stack.pixel_size_A,
        "n_particles": n,
        "version": __version__,
        "torch_version": torch.__version__,
        "sources": sources_of(
            {**Settings.model_fields, **RecordedOptions.model_fields},
            options.given | ({"processes"} if processes > 1 else set()) | initial.given,
            [name for name, is_from_data in from_data.items() if is_from_data],
        ),
    }
    asked = {name: getattr(options, name) for name in RecordedOptions.model_fields}
    return Settings(**asked | lengths_A | bands | resolved)


def _lengths(options: Options, stack: ParticleStack, initial: Initial) -> dict[str, float]:
    """The particle's diameter, as its images tell it, and its offsets, in Å."""
    length_A = stack.box * stack.pixel_size_A
    diameter_A, sigma_A, extent_A = options.diameter_A, options.shift_sigma_A, options.shift_extent_A
    if diameter_A is None:
        measured_A = measure_diameter_A(stack)
        diameter_A = min(length_A if measured_A is None else ROOM * measured_A, DEFAULT_DIAMETER * length_A)
    elif diameter_A > length_A:
        raise UsageError(f"--diameter {diameter_A:g} Å exceeds the box of {length_A:.1f} Å")
    given_sigma_A, given_extent_A = initial.shifts_A(stack, length_A / 4)
    sigma_A = max(DEFAULT_SHIFT_SIGMA * length_A, given_sigma_A) if sigma_A is None else sigma_A
    if extent_A is None:
        extent_A = min(max(3 * sigma_A, given_extent_A), length_A / 4)
    elif extent_A > length_A / 4:
        raise UsageError(f"--shift-extent {extent_A:g} Å exceeds a quarter of the box, {length_A / 4:.1f} Å")
    return {"diameter_A": diameter_A, "shift_sigma_A": sigma_A, "shift_extent_A": extent_A}


def _working_box(stack: ParticleStack, lengths_A: dict[str, float]) -> int:
    """The side in pixels of what is cut from the images: the particle, its offsets and the edge of the mask fit in."""
    diameter_px, extent_px = (lengths_A[name] / stack.pixel_size_A for name in ("diameter_A", "shift_extent_A"))
    needed = max(diameter_px / DEFAULT_DIAMETER, diameter_px + 2 * extent_px + 2 * MASK_EDGE_PX, SMALLEST_BOX)
    # scipy's lengths have factors up to 5, of which FFTs are fast; even, so that halves and corners stay what they are.
    return min(2 * int(next_fast_len(math.ceil(needed / 2), real=True)), stack.box)


def _counts(options: Options, n: int, path: Path) -> tuple[int, int, int]:
    """Particles held out, particles in a minibatch, and how many a minibatch of this method has unless they are few."""
    held_out = min(HELD_OUT, n // 5) if options.held_out is None else options.held_out
    if held_out > n // 2:
        raise UsageError(
            f"{path}: --held-out {held_out} leaves too few of {n} particles to train on; hold out at most {n // 2}"
        )
    training = n - held_out
    usual = METHODS[options.method].batch_size if options.method in METHODS else MINIBATCH
    if options.batch_size is None:
        # Few particles are to make several folds, of the half that a start is trained on.
        of_a_start = training if options.starts == 1 else training // 2
        of_a_fold = max(LEAST_MINIBATCH, of_a_start // FOLDS) if options.method == "auto" else usual
        return held_out, min(usual, of_a_fold, training), usual
    if options.batch_size > training:
        raise UsageError(f"{path}: --batch-size {options.batch_size} exceeds the {training} particles to train on")
    return held_out, options.batch_size, usual


def _bands(
    box: int, length_A: float, max_resolution_A: float | None, affordable: float | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Band limits in Fourier pixels, to the finest that was asked for: of sums over all poses, and of refinement.

    Both begin at the first; a run goes over from the one to the other as soon as the images know their poses. Unless
    asked for, refinement goes as far as is `affordable`; None where there is no refinement.
    """
    nyquist, refines = box / 2 - 1, affordable is not None
    largest = nyquist if refines else min(LARGEST_EXACT_R_MAX, nyquist)
    last = min(DEFAULT_LAST_EXACT_R_MAX, nyquist) if affordable is None else affordable
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


def _initial_r_max(
    initial: Initial, stages: tuple[float, ...], refined: tuple[float, ...], length_A: float
) -> float | None:
    """The detail of the map that refinement begins with, in Fourier pixels, where there are no random starts.

    Raises UsageError for detail that leaves nothing to refine.
    """
    if initial.kind == "random":
        return None
    if initial.resolution_A is None:
        return stages[-1]
    r_max, finest = length_A / initial.resolution_A, refined[-1] / LEAST_GROWTH if refined else 0.0
    if not LEAST_INITIAL_R_MAX <= r_max <= finest:
        raise UsageError(
            f"--initial-resolution must lie between {length_A / finest if finest else math.inf:.1f} and "
            f"{length_A / LEAST_INITIAL_R_MAX:.1f} Å, found {initial.resolution_A:g}"
        )
    return round(r_max, 3)


def _steps(first: float, last: float, factor: float) -> tuple[float, ...]:
    """Band limits from above the first to the last, in even ratios of about `factor`; none where they are the same."""
    if last < first * 1.001:
        return ()
    n = max(1, round(math.log(last / first) / math.log(factor)))
    return tuple(round(first * (last / first) ** ((i + 1) / n), 3) for i in range(n))
