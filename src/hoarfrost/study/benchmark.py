"""The verb `benchmark`: optimisers and baselines on one data set, from the same starts, into a study folder."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoarfrost._version import __version__
from hoarfrost.errors import UsageError
from hoarfrost.io.atomic import write_text_atomically
from hoarfrost.io.mrc import write_volume
from hoarfrost.optim.registry import MethodSpec
from hoarfrost.options import DeviceName
from hoarfrost.study.choices import check, choose_methods, choose_preset
from hoarfrost.study.data import StudyData, particle_data, synthetic_data
from hoarfrost.study.examples import write_example_images
from hoarfrost.study.options import StudyOptions
from hoarfrost.study.presets import Preset
from hoarfrost.study.results import MapScore, score, summarise, trial_record
from hoarfrost.study.trial import BASELINES, Trial, run_trial

# What a study folder may hold: overwriting removes these and refuses a folder that holds others.
FILES = ("results.json", "report.html", "images.npz", "pictures")
MAPS = "maps"
SENSITIVITY_FACTORS = (1 / 3, 3.0)


@dataclass(frozen=True)
class Progress:
    """How far a study is, from 0 to 1, and what it does now."""

    fraction_done: float
    doing: str


@dataclass(frozen=True)
class StudyResult:
    """Where a study put its results, and the content of results.json."""

    output: Path
    results_path: Path
    results: dict[str, Any]


def benchmark(output: Path, options: StudyOptions) -> StudyResult:
    """The verb `hoarfrost.benchmark`, which documents arguments and errors."""
    preset, methods = choose_preset(options), choose_methods(options.methods)
    check(preset, options)
    _check_output(output, options.overwrite)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device: DeviceName = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.particles is None:
        data = synthetic_data(preset, options.ctf_from, device)
    else:
        data = particle_data(preset, options.particles, options.datadir, options.reference, device)
    _prepare_output(output)
    return _Study(output, preset, data, methods, options).run()


class _Study:
    def __init__(
        self,
        output: Path,
        preset: Preset,
        data: StudyData,
        methods: list[MethodSpec | str],
        options: StudyOptions,
    ) -> None:
        self._output, self._preset, self._data, self._methods = output, preset, data, methods
        self._seeds, self._sensitivity, self._progress = options.seeds, options.sensitivity, options.progress
        n = len(data.images)
        self._epoch = n
        self._budget = round(preset.epochs * n)
        self._trials: list[dict[str, Any]] = []
        self._starts: list[MapScore] = []
        self._tests: list[dict[str, Any]] = []
        searched = [m for m in methods if isinstance(m, MethodSpec)] if options.sensitivity else []
        self._total = options.seeds * sum(self._budget_of(m) for m in methods)
        self._total += len(searched) * len(SENSITIVITY_FACTORS) * self._test_budget
        self._done = 0
        self._started = time.monotonic()

    @property
    def _test_budget(self) -> int:
        return min(self._budget, round(self._preset.sensitivity_epochs * self._epoch))

    def _budget_of(self, method: MethodSpec | str) -> int:
        return self._preset.baseline_iterations * self._epoch if method in BASELINES else self._budget

    def run(self) -> StudyResult:
        write_example_images(self._output / "images.npz", self._data)
        if self._data.truth is not None:
            self._write_map("truth.mrc", self._data.truth)
        for seed in range(self._seeds):
            self._starts.append(self._keep_map(self._data.start(seed).volume, 0, f"start-seed{seed}"))
            for method in self._methods:
                trial = self._trial(method, seed)
                if seed == 0 and self._sensitivity and isinstance(method, MethodSpec):
                    self._test_sensitivity(method, trial)
        return StudyResult(self._output, self._output / "results.json", self._write())

    def _trial(self, method: MethodSpec | str, seed: int) -> Trial:
        name = method if isinstance(method, str) else method.title
        budget = self._budget_of(method)
        trial = run_trial(
            self._data,
            method,
            seed,
            budget=budget,
            map_marks=(*self._preset.map_marks, self._epoch),
            map_growth=self._preset.fsc_growth,
            say=functools.partial(self._say, f"{name}, start {seed}", budget),
        )
        self._done += budget
        maps = [self._starts[seed]]
        for gradients in (g for g in trial.volumes if g > 0):
            maps.append(self._keep_map(trial.volumes[gradients], gradients, f"{_file_name(trial.method)}-seed{seed}"))
        self._trials.append(trial_record(trial, maps))
        self._write()
        return trial

    def _test_sensitivity(self, method: MethodSpec, trial: Trial) -> None:
        """The same start with a third of the rate and three times it."""
        at_same = max(
            (c for c in trial.checkpoints if c.image_gradients <= self._test_budget * 1.02),
            key=lambda c: c.image_gradients,
        )
        record = {"method": trial.method, "title": trial.title, "image_gradients": at_same.image_gradients}
        nll: dict[str, float | None] = {"1": at_same.nll}
        for factor in SENSITIVITY_FACTORS:
            doing = f"{method.title}, rate × {factor:.2g}"
            test = run_trial(
                self._data,
                method,
                0,
                budget=self._test_budget,
                map_marks=(),
                map_growth=float("inf"),
                factor=factor,
                rate=trial.rate,
                say=functools.partial(self._say, doing, self._test_budget),
            )
            self._done += self._test_budget
            nll[f"{factor:.2g}"] = None if test.failure is not None else test.checkpoints[-1].nll
        self._tests.append({**record, "nll": nll})
        self._write()

    def _say(self, doing: str, budget: int, done: int) -> None:
        if self._progress is not None:
            # The last minibatch may go beyond the budget.
            self._progress(Progress((self._done + min(done, budget)) / self._total, doing))

    def _keep_map(self, volume: Tensor, gradients: int, name: str) -> MapScore:
        """Judge a map and write it, turned onto the truth if there is one."""
        path = f"{name}-{gradients}.mrc"
        scored, turned = score(self._data, volume, gradients, f"{MAPS}/{path}")
        self._write_map(path, turned)
        return scored

    def _write_map(self, name: str, volume: Tensor) -> None:
        folder = self._output / MAPS
        folder.mkdir(exist_ok=True)
        write_volume(folder / name, volume.cpu().numpy().astype(np.float32), self._data.length_A / self._data.band.box)

    def _write(self) -> dict[str, Any]:
        data, band = self._data, self._data.band
        zero = data.nll(torch.zeros_like(data.support))[0]
        results = {
            "hoarfrost": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": {
                "processor": _processor(),
                "cpu_count": os.cpu_count(),
                "threads": torch.get_num_threads(),
                "device": str(band.device),
            },
            "preset": dataclasses.asdict(self._preset),
            "seeds": self._seeds,
            "wall_seconds": time.monotonic() - self._started,
            "data": {
                "title": data.title,
                "n_images": len(data.images),
                "held_out": len(data.held_out),
                "ctf_source": data.ctf_source,
                "box": band.disc.box,
                "pixel_size_A": data.pixel_size_A,
                "r_max": band.r_max,
                "resolution_A": data.length_A / band.r_max,
                "volume_box": band.box,
                "orientations": band.poses.orientations.n_nodes,
                "shifts": len(band.poses.shifts.shifts_px),
                "nll_zero": zero,
                "nll_truth": None if data.truth is None else data.nll(data.truth)[0],
            },
            "trials": self._trials,
            "sensitivity": self._tests,
            "summary": summarise(self._trials),
        }
        write_text_atomically(self._output / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
        return results


def _check_output(output: Path, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; choose another folder for the study")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise UsageError(f"{output} exists; choose another folder or give --overwrite")
        others = sorted(entry.name for entry in output.iterdir() if entry.name not in (*FILES, MAPS))
        if others:
            raise UsageError(f"{output} holds {others[0]}, which benchmark did not write; choose another folder")


def _prepare_output(output: Path) -> None:
    """Make the folder, or empty it of an earlier study, whose maps must not pass for the new one's."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name in (*FILES, MAPS):
            path = output / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error


def _file_name(method: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in method)


def _processor() -> str:
    """The processor's name where the system tells it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
