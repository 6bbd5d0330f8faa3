"""The pruned sum over poses against the exact one at the published size: time, error, and what was scored."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.model.adaptive import AdaptiveSum
from hoarfrost.model.likelihood import PoseModel, Posterior, WhitenedImages, marginalise
from hoarfrost.model.pruned import Pruning, adaptive_marginalise
from hoarfrost.seeds import named_generator


@dataclass(frozen=True)
class AdaptiveTiming:
    """Milliseconds an image with statistics, of the exact sum and of the pruned one, and nats an image that it lost.

    `wall_ms` and `cpu_ms` are (exact, pruned); CPU time is over all threads and says more on a busy machine. `bands`
    and `margin` are those that `AdaptiveSum` chose, None where it chose to sum exactly; `kept` are the nodes an image
    that the sums after the first scored, of `nodes` in all. Slicing the map is not counted, nor are spot checks.
    """

    images: int
    nodes: int
    bands: tuple[float, ...] | None
    margin: float
    kept: tuple[float, ...]
    wall_ms: tuple[float, float]
    cpu_ms: tuple[float, float]
    mean_error: float
    largest_error: float
    median_ess: float


def time_adaptive(
    images: WhitenedImages, slices: Tensor, poses: PoseModel, *, repeats: int = 3, seed: int = 0
) -> AdaptiveTiming:
    """Median times of both sums, taken by turns, over images (b, K) given slices (n_base, K)."""
    chooser = AdaptiveSum(named_generator(seed, "adaptive timing"))
    chooser(images, slices, poses, statistics=False)
    pruning = chooser.pruning
    kept: tuple[float, ...] = ()

    def pruned() -> Posterior:
        nonlocal kept
        if pruning is None:
            return marginalise(images, slices, poses)
        found = adaptive_marginalise(images, slices, poses, pruning)
        kept = tuple(found.kept.tolist())
        return found.posterior

    runs = [(_timed(lambda: marginalise(images, slices, poses)), _timed(pruned)) for _ in range(repeats)]
    per_image = 1e3 / len(images)
    wall = [per_image * _median([run[way].wall_s for run in runs]) for way in range(2)]
    cpu = [per_image * _median([run[way].cpu_s for run in runs]) for way in range(2)]
    exact, found = (run.posterior for run in runs[-1])
    lost = exact.log_evidence - found.log_evidence
    return AdaptiveTiming(
        images=len(images),
        nodes=poses.orientations.n_nodes * len(poses.shifts.shifts_px),
        bands=None if pruning is None else pruning.bands,
        margin=chooser.margin,
        kept=kept,
        wall_ms=(wall[0], wall[1]),
        cpu_ms=(cpu[0], cpu[1]),
        mean_error=float(lost.mean()),
        largest_error=float(lost.max()),
        median_ess=float(exact.ess.median()),
    )


def error_against_margin(
    images: WhitenedImages, slices: Tensor, poses: PoseModel, bands: tuple[float, ...], margins: tuple[float, ...]
) -> list[dict[str, float]]:
    """For each margin: nodes kept for the last sum, mean and largest error in nats, images that lost half or more."""
    exact = marginalise(images, slices, poses, statistics=False).log_evidence
    rows = []
    for margin in margins:
        found = adaptive_marginalise(images, slices, poses, Pruning(bands, margin), statistics=False)
        lost = exact - found.posterior.log_evidence
        rows.append(
            {
                "margin": margin,
                "kept": float(found.kept[-1]),
                "mean_error": float(lost.mean()),
                "largest_error": float(lost.max()),
                "lost_half": int((lost > 0.6931).sum()),
            }
        )
    return rows


@dataclass(frozen=True)
class _Timed:
    wall_s: float
    cpu_s: float
    posterior: Posterior


def _timed(run: Callable[[], Posterior]) -> _Timed:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return _Timed(time.perf_counter() - wall, time.process_time() - cpu, found)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
