"""What a study found, as plain numbers for results.json, and the figures that are read off the trials."""

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from hoarfrost.evaluation.align import align
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.optim.registry import PUBLISHED
from hoarfrost.study.data import StudyData
from hoarfrost.study.trial import BASELINES, Trial

# A start has succeeded if the mean FSC of its map with the truth, up to the band limit, reaches this.
SUCCESS_FSC = 0.9
# The target of a study is the best final NLL of the published methods plus this, in nats per image.
TARGET_MARGIN = 0.5


@dataclass(frozen=True)
class MapScore:
    """How the map after `image_gradients` agrees with the truth, None where that is unknown.

    `fsc` holds shells 0 to the band limit, `mean_fsc` is the mean of shells from 1. `path` is the map's file.
    """

    image_gradients: int
    path: str
    mean_fsc: float | None
    fsc: list[float] | None


def score(data: StudyData, volume: Tensor, gradients: int, path: str) -> tuple[MapScore, Tensor]:
    """A map's agreement with the truth, and the map turned onto the truth; as it is, where that is unknown."""
    volume = volume.cpu()
    if data.truth is None or not bool(volume.any()):
        return MapScore(gradients, path, None, None), volume
    fsc, aligned = aligned_fsc(volume, data.truth.cpu(), data.band.r_max)
    rounded = [round(float(value), 4) for value in fsc]
    return MapScore(gradients, path, float(fsc[1:].mean()), rounded), aligned


def aligned_fsc(volume: Tensor, truth: Tensor, r_max: float) -> tuple[Tensor, Tensor]:
    """FSC with the truth in shells 0 to r_max, float64, of a map turned onto it, in either hand; and that map.

    Raises ValueError as `hoarfrost.evaluation.align.align` does.
    """
    aligned = align(volume, truth).aligned
    return fourier_shell_correlation(aligned, truth)[: int(r_max) + 1], aligned


def trial_record(trial: Trial, maps: list[MapScore]) -> dict[str, Any]:
    """A trial as JSON takes it."""
    rate = None if trial.rate is None else asdict(trial.rate)
    if rate is not None:
        rate["tried"] = {
            f"{factor:.3g}": value if math.isfinite(value) else None for factor, value in sorted(rate["tried"].items())
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


def summarise(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Per method: final NLL, image gradients and seconds to the target, share of starts that came to the truth.

    Trials that failed have no final figures and reach no target; `failures` says what became of each.
    The target of each seed is the best final NLL of the published methods present, plus half a nat; of all
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
        ended = [t for t in own if t["failure"] is None]
        lasts = [t["checkpoints"][-1] for t in ended]
        reached = [_first_below(t, targets[t["seed"]]) for t in own if t["seed"] in targets]
        methods[name] = {
            "title": own[0]["title"],
            "final_nll": _median_or_none([last["nll"] for last in lasts]),
            "seconds": _median_or_none([last["seconds"] for last in lasts]),
            "image_gradients": _median_or_none([last["image_gradients"] for last in lasts]),
            "gradients_to_target": _median([None if r is None else r["image_gradients"] for r in reached]),
            "seconds_to_target": _median([None if r is None else r["seconds"] for r in reached]),
            "success_rate": _success_rate(own),
            "mean_fsc": _median_or_none([t["maps"][-1]["mean_fsc"] for t in ended if t["maps"]]),
            "starts": len(own),
            "failures": [t["failure"] for t in own if t["failure"] is not None],
        }
    return {"targets": {str(seed): value for seed, value in targets.items()}, "methods": methods}


def _first_below(trial: dict[str, Any], target: float) -> dict[str, Any] | None:
    if trial["failure"] is not None:
        return None
    return next((c for c in trial["checkpoints"] if c["nll"] <= target), None)


def _median(values: list[Any]) -> float | None:
    """The median with None above all numbers."""
    if not values:
        return None
    middle = sorted(values, key=lambda v: float("inf") if v is None else float(v))[len(values) // 2]
    return None if middle is None else float(middle)


def _median_or_none(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _success_rate(trials: list[dict[str, Any]]) -> float | None:
    found = [(t["maps"][-1]["mean_fsc"], t["failure"] is None) for t in trials if t["maps"]]
    if not found or any(fsc is None for fsc, _ in found):
        return None
    return float(sum(fsc >= SUCCESS_FSC and has_ended for fsc, has_ended in found)) / len(found)
