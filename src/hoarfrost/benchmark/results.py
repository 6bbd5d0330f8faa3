"""What a study found, as plain numbers for results.json, and the figures that are read off the trials."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

from hoarfrost.benchmark.data import StudyData
from hoarfrost.benchmark.trial import BASELINES, Trial
from hoarfrost.evaluate.align import align
from hoarfrost.fsc import fourier_shell_correlation, resolution_A
from hoarfrost.optim.registry import PUBLISHED

FSC_THRESHOLD = 0.5
# A trial has succeeded if its map agrees with the truth up to this share of the band limit.
SUCCESS_SHARE = 0.8
# The target of a study: the best final NLL among the published methods, plus so many nats per image.
TARGET_MARGIN = 0.1


@dataclass(frozen=True)
class MapScore:
    """FSC with the truth, after alignment, of the map after so many image gradients; `path` is its file."""

    image_gradients: int
    path: str
    fsc_05_A: float | None
    fsc: list[float] | None


def score(data: StudyData, trial: Trial, gradients: int, path: str) -> MapScore:
    """The map's FSC with the truth, if that is known."""
    if data.truth is None:
        return MapScore(gradients, path, None, None)
    volume, truth = trial.volumes[gradients].cpu(), data.truth.cpu()
    voxel_A = data.length_A / data.band.box
    if not bool(volume.any()):
        return MapScore(gradients, path, data.length_A, None)
    fsc = fourier_shell_correlation(align(volume, truth, pixel_size_A=voxel_A).aligned, truth)
    within = fsc[: int(data.band.r_max) + 1]
    found_A = max(resolution_A(fsc, data.band.box, voxel_A, FSC_THRESHOLD), data.length_A / data.band.r_max)
    return MapScore(gradients, path, found_A, [round(float(value), 4) for value in within])


def trial_record(trial: Trial, maps: list[MapScore]) -> dict[str, Any]:
    """A trial as JSON takes it."""
    rate = None
    if trial.rate is not None:
        tried = {
            f"{factor:.3g}": value if math.isfinite(value) else None
            for factor, value in sorted(trial.rate.tried.items())
        }
        rate = {
            "base": trial.rate.base,
            "factor": trial.rate.factor,
            "tried": tried,
            "image_gradients": trial.rate.image_gradients,
        }
    return {
        "method": trial.method,
        "title": trial.title,
        "seed": trial.seed,
        "baseline": trial.method in BASELINES,
        "rate": rate,
        "failure": trial.failure,
        "checkpoints": [asdict(checkpoint) for checkpoint in trial.checkpoints],
        "maps": [asdict(scored) for scored in maps],
    }


def summarise(trials: list[dict[str, Any]], limit_A: float) -> dict[str, Any]:
    """Per method: final NLL, image gradients and seconds to the target, share of starts that came to the truth.

    The target of each seed is the best final NLL of the published methods present, plus a tenth of a nat; of all
    methods but the baselines if none is. Medians are over seeds; None where fewer than half of the seeds reached it.
    """
    targets = {}
    for seed in sorted({t["seed"] for t in trials}):
        optimisers = [t for t in trials if t["seed"] == seed and not t["baseline"] and t["failure"] is None]
        published = [t for t in optimisers if t["method"] in PUBLISHED]
        finals = [t["checkpoints"][-1]["nll"] for t in published or optimisers]
        if finals:
            targets[seed] = min(finals) + TARGET_MARGIN
    methods = {}
    for name in dict.fromkeys(t["method"] for t in trials):
        own = [t for t in trials if t["method"] == name]
        reached = [_first_below(t, targets[t["seed"]]) for t in own if t["seed"] in targets]
        methods[name] = {
            "title": own[0]["title"],
            "final_nll": statistics.median(t["checkpoints"][-1]["nll"] for t in own),
            "seconds": statistics.median(t["checkpoints"][-1]["seconds"] for t in own),
            "image_gradients": statistics.median(t["checkpoints"][-1]["image_gradients"] for t in own),
            "gradients_to_target": _median([None if r is None else r["image_gradients"] for r in reached]),
            "seconds_to_target": _median([None if r is None else r["seconds"] for r in reached]),
            "success_rate": _success_rate(own, limit_A),
            "fsc_05_A": _median([t["maps"][-1]["fsc_05_A"] for t in own if t["maps"]]),
            "failed": sum(t["failure"] is not None for t in own),
        }
    return {"targets": {str(seed): value for seed, value in targets.items()}, "methods": methods}


def _first_below(trial: dict[str, Any], target: float) -> dict[str, Any] | None:
    return next((c for c in trial["checkpoints"] if c["nll"] <= target), None)


def _median(values: list[Any]) -> float | None:
    """The median with None above all numbers."""
    if not values:
        return None
    middle = sorted(values, key=lambda v: float("inf") if v is None else float(v))[len(values) // 2]
    return None if middle is None else float(middle)


def _success_rate(trials: list[dict[str, Any]], limit_A: float) -> float | None:
    found = [t["maps"][-1]["fsc_05_A"] for t in trials if t["maps"]]
    if not found or any(value is None for value in found):
        return None
    return float(sum(value <= limit_A / SUCCESS_SHARE for value in found)) / len(found)
