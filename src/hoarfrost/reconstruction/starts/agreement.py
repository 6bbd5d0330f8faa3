"""Several random starts: how many of their maps agree, and which explains the held-out particles best.

A start that ends in a wrong solution may look as fine as a right one by itself, and its half maps agree. But wrong
solutions differ from start to start, and the right one does not, but for its hand and its place; and particles that
no start was trained on tell which map explains them best. Starts are compared as soon as their images know their
poses, and refinement goes on from the mean of those that agree.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import partial

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hoarfrost.evaluation.align import align
from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.maths.fsc import fourier_shell_correlation, resolution_A
from hoarfrost.reconstruction.estimate.held_out import Optimised
from hoarfrost.reconstruction.starts.loop import Reconstruction
from hoarfrost.reconstruction.state.checkpoints import State

STARTS = "starts.json"
# Maps agree up to the shell where their FSC falls below this, as a map does with a known structure.
FSC_OF_TWO_MAPS = 0.5
# Any two lumps of the same size agree in the lowest shells after alignment. On beta-galactosidase right starts agree
# up to shell 5.5 to 6.5.
LEAST_SHELLS_IN_COMMON = 5.0
# Annealed starts on nothing but noise all come to one and the same ball, which explains nothing; in nats a particle.
LEAST_GAIN = 0.5


@dataclass(frozen=True)
class StartsResult:
    """What several starts came to.

    `gains` are nats per held-out particle over an empty map, all at the coarsest band limit that any start ended with.
    `resolution_A` is where the FSC of each start's map with the chosen one falls below 0.5, None for the chosen.
    `chosen` is the start of the highest gain. With a single start all are empty.
    """

    gains: tuple[float, ...] = ()
    resolution_A: tuple[float | None, ...] = ()
    agrees: tuple[bool, ...] = ()
    chosen: int = 0

    @property
    def n_agreeing(self) -> int:
        """Starts that agree with the chosen one, itself included."""
        return sum(self.agrees)

    def summary(self) -> str:
        """Like "2 of 3 agree, to 48 Å", the resolution being the finest of those that agree."""
        limits_A = [r for r, agrees in zip(self.resolution_A, self.agrees, strict=True) if agrees and r is not None]
        limit = f", to {min(limits_A):.0f} Å" if limits_A else ""
        return f"{self.n_agreeing} of {len(self.gains)} agree{limit}"


@dataclass(frozen=True)
class Started:
    """Maps to go on with, and how the starts that led to them compare."""

    optimised: Optimised
    result: StartsResult

    def state(self) -> State:
        """All there is to know of it."""
        return {"optimised": self.optimised.state(), "result": dict(vars(self.result))}

    @classmethod
    def restored(cls, state: State) -> Started:
        """The one whose state that was."""
        gains, resolution_A, agrees, chosen = (state["result"][field.name] for field in fields(StartsResult))
        result = StartsResult(tuple(gains), tuple(resolution_A), tuple(agrees), chosen)
        return cls(Optimised.restored(state["optimised"]), result)


def run_starts(run: Reconstruction) -> tuple[Optimised, StartsResult]:
    """Optimise from one random start after the other; go on with the mean of those that agree, or with the best.

    Unless their number was asked for, they end as soon as the best so far agrees with another.
    """
    started = run.checkpoints.once("starts", partial(_run_starts, run), Started)
    return started.optimised, started.result


def _run_starts(run: Reconstruction) -> Started:
    settings = run.settings
    found: list[Optimised] = []

    def compared() -> Started:
        started = Started(*compare(run, found))
        run.live.keep(STARTS, asdict(started.result))
        run.say(f"Random starts so far: {started.result.summary()}")
        return started

    for number in range(settings.starts):
        found.append(run.checkpoints.once(f"start {number}", partial(run.optimise, number), Optimised))
        if number == 0:
            started = Started(found[0], StartsResult())
            continue
        started = run.checkpoints.once(f"comparison {number}", compared, Started)
        if settings.until_two_agree and started.result.n_agreeing > 1:
            run.share_done.skip_starts(number + 1)
            break
    return started


def compare(run: Reconstruction, found: list[Optimised]) -> tuple[Optimised, StartsResult]:
    """Judge the starts by the same particles at the same band limit, and each map against the best.

    Returns what to go on with: the mean of the maps that agree, if it explains held-out particles better than the best
    of them. What is wrong in each is wrong in its own way, and refinement is slow to mend it: on beta-galactosidase one
    start ended at 37 Å by itself, from the mean with another at 29 Å.
    """
    stage = min(start.stage for start in found)
    band = run.make_band(stage)
    held_out = run.source.images(run.team.share(run.held_out), band.disc)
    every = [torch.stack([fourier_resize(volume, band.box) for volume in start.volumes]) for start in found]
    gains = [run.judge(band, v, start.log_shares, held_out).gain for v, start in zip(every, found, strict=True)]
    chosen = max(range(len(found)), key=gains.__getitem__)
    best = found[chosen]
    length_A = run.settings.box * run.settings.pixel_size_A
    coarsest_A = length_A / min(LEAST_SHELLS_IN_COMMON, band.r_max - 0.5)
    resolutions: list[float | None] = []
    for number, volumes in enumerate(every):
        if number == chosen:
            resolutions.append(None)
            continue
        every[number] = run.team.from_first(partial(onto, every[chosen], volumes), volumes)
        found_A = run.team.number_from_first(partial(agreement_A, every[number], every[chosen], length_A))
        # Maps hold a little beyond the band limit, which their ends in space put there.
        resolutions.append(max(found_A, length_A / band.r_max))
    say_something = gains[chosen] > LEAST_GAIN
    agrees = tuple(a is None or (say_something and a < coarsest_A) for a in resolutions)
    result = StartsResult(tuple(gains), tuple(resolutions), agrees, chosen)
    if result.n_agreeing > 1:
        mean = torch.stack([volumes for volumes, agree in zip(every, agrees, strict=True) if agree]).mean(dim=0)
        gain = run.judge(band, mean, best.log_shares, held_out).gain
        if gain > gains[chosen]:
            return Optimised(mean, best.log_shares, stage, gain, best.converged), result
    return best, result


def agreement_A(aligned: Tensor, reference: Tensor, length_A: float) -> float:
    """Where the FSC of two maps (C, box, box, box) falls below 0.5, in Å, of the class where it does so first."""
    box = reference.shape[-1]
    curves = [fourier_shell_correlation(a, b) for a, b in zip(aligned, reference, strict=True)]
    return max(resolution_A(fsc, box, length_A / box, FSC_OF_TWO_MAPS) for fsc in curves)


def onto(reference: Tensor, volumes: Tensor) -> Tensor:
    """Maps (C, box, box, box) on reference ones: each at best of all rotations, shifts and both hands.

    Classes come in any order; they go to those that they correlate with best, each to one.
    """
    if min(float(volume.std()) for volume in (*reference, *volumes)) == 0:
        return volumes  # An empty map, of images of the other contrast, lies nowhere.
    found = [[align(volume, of_class) for volume in volumes] for of_class in reference]
    correlation = [[aligned.correlation for aligned in row] for row in found]
    _, taken = linear_sum_assignment(correlation, maximize=True)
    return torch.stack([row[c].aligned for row, c in zip(found, taken, strict=True)]).to(volumes)
