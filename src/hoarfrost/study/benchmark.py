"""The verb `benchmark`: optimisers and baselines on one data set, from the same starts, into a study folder."""

import dataclasses
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoarfrost._version import __version__
from hoarfrost.io.atomic import is_of_job, write_text_atomically
from hoarfrost.io.folders import check_output, make_folder
from hoarfrost.io.mrc import write_volume
from hoarfrost.optim.registry import MethodSpec
from hoarfrost.options import DeviceName
from hoarfrost.study.choices import check, choose_methods, choose_preset
from hoarfrost.study.data import StudyData, particle_data, synthetic_data
from hoarfrost.study.examples import write_example_images
from hoarfrost.study.machine import processor_name
from hoarfrost.study.options import StudyOptions
from hoarfrost.study.presets import Preset
from hoarfrost.study.results import MapScore, score, summarise, trial_record
from hoarfrost.study.trial import BASELINES, Plan, Trial, run_trial

# What a study folder may hold: overwriting removes these and refuses a folder that holds others.
MAPS = "maps"
CONTENT = ("results.json", "report.html", "images.npz", "pictures", MAPS)
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
    check_output(output, options.overwrite, _others, command="benchmark")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device: DeviceName = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.particles is None:
        data = synthetic_data(preset, options.ctf_from, device)
    else:
        data = particle_data(preset, options.particles, options.datadir, options.reference, device)
    make_folder(output, CONTENT)
    return _Study(output, preset, data, methods, options).run()


@dataclass
class _Study:
    """The trials of a study, and what came of them so far."""

    output: Path
    preset: Preset
    data: StudyData
    methods: list[MethodSpec | str]
    options: StudyOptions

    def __post_init__(self) -> None:
        self._trials: list[dict[str, Any]] = []
        self._starts: list[MapScore] = []
        self._tests: list[dict[str, Any]] = []
        is_tested = self.options.sensitivity
        searched = [method for method in self.methods if isinstance(method, MethodSpec)] if is_tested else []
        self._total = self.options.seeds * sum(self._budget_of(method) for method in self.methods)
        self._total += len(searched) * len(SENSITIVITY_FACTORS) * self._test_budget
        self._done = 0
        self._started = time.monotonic()

    @property
    def _epoch(self) -> int:
        return len(self.data.images)

    @property
    def _budget(self) -> int:
        return round(self.preset.epochs * self._epoch)

    @property
    def _test_budget(self) -> int:
        return min(self._budget, round(self.preset.sensitivity_epochs * self._epoch))

    def _budget_of(self, method: MethodSpec | str) -> int:
        return self.preset.baseline_iterations * self._epoch if method in BASELINES else self._budget

    def run(self) -> StudyResult:
        write_example_images(self.output / "images.npz", self.data)
        if self.data.truth is not None:
            self._write_map("truth.mrc", self.data.truth)
        for seed in range(self.options.seeds):
            self._starts.append(self._keep_map(self.data.start(seed).volume, 0, f"start-seed{seed}"))
            for method in self.methods:
                trial = self._trial(method, seed)
                if seed == 0 and self.options.sensitivity and isinstance(method, MethodSpec):
                    self._test_sensitivity(method, trial)
        return StudyResult(self.output, self.output / "results.json", self._write())

    def _trial(self, method: MethodSpec | str, seed: int) -> Trial:
        name = method if isinstance(method, str) else method.title
        plan = Plan(self._budget_of(method), (*self.preset.map_marks, self._epoch), self.preset.fsc_growth)
        trial = self._run(method, seed, plan, f"{name}, start {seed}")
        maps = [self._starts[seed]]
        for gradients in (g for g in trial.volumes if g > 0):
            maps.append(self._keep_map(trial.volumes[gradients], gradients, f"{_file_name(trial.method)}-seed{seed}"))
        self._trials.append(trial_record(trial, maps))
        self._write()
        return trial

    def _test_sensitivity(self, method: MethodSpec, trial: Trial) -> None:
        """The same start with a third of the rate and three times it; of a method that failed there is none."""
        if trial.failure is not None:
            self._done += len(SENSITIVITY_FACTORS) * self._test_budget
            return
        at_same = max(
            (c for c in trial.checkpoints if c.image_gradients <= self._test_budget * 1.02),
            key=lambda c: c.image_gradients,
        )
        record = {"method": trial.method, "title": trial.title, "image_gradients": at_same.image_gradients}
        nll: dict[str, float | None] = {"1": at_same.nll}
        for factor in SENSITIVITY_FACTORS:
            plan = Plan(self._test_budget, rate=trial.rate, factor=factor)
            test = self._run(method, 0, plan, f"{method.title}, rate × {factor:.2g}")
            nll[f"{factor:.2g}"] = None if test.failure is not None else test.checkpoints[-1].nll
        self._tests.append({**record, "nll": nll})
        self._write()

    def _run(self, method: MethodSpec | str, seed: int, plan: Plan, doing: str) -> Trial:
        def say(done: int) -> None:
            # The last minibatch may go beyond the budget.
            if self.options.progress is not None:
                self.options.progress(Progress((self._done + min(done, plan.budget)) / self._total, doing))

        trial = run_trial(self.data, method, seed, plan, say)
        self._done += plan.budget
        return trial

    def _keep_map(self, volume: Tensor, gradients: int, name: str) -> MapScore:
        """Judge a map and write it, turned onto the truth if there is one."""
        path = f"{name}-{gradients}.mrc"
        scored, turned = score(self.data, volume, gradients, f"{MAPS}/{path}")
        self._write_map(path, turned)
        return scored

    def _write_map(self, name: str, volume: Tensor) -> None:
        folder = self.output / MAPS
        folder.mkdir(exist_ok=True)
        write_volume(folder / name, volume.cpu().numpy().astype(np.float32), self.data.length_A / self.data.band.box)

    def _write(self) -> dict[str, Any]:
        data, band = self.data, self.data.band
        zero = data.nll(torch.zeros_like(data.support))[0]
        results = {
            "hoarfrost": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": {
                "processor": processor_name(),
                "cpu_count": os.cpu_count(),
                "threads": torch.get_num_threads(),
                "device": str(band.device),
            },
            "preset": dataclasses.asdict(self.preset),
            "seeds": self.options.seeds,
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
        write_text_atomically(self.output / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
        return results


def _others(output: Path) -> list[Path]:
    """What neither `benchmark` nor a job that runs it wrote."""
    return [path for path in output.iterdir() if path.name not in CONTENT and not is_of_job(path.name)]


def _file_name(method: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in method)
