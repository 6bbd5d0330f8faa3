"""Several random starts: how many of their maps agree, and which explains the held-out particles best.

A start that ends in a wrong solution may look as fine as a right one by itself, and its half maps agree. But wrong
solutions differ from start to start, and the right one does not, but for its hand and its place; and particles that
no start was trained on tell which map explains them best. Starts are compared as soon as their images know their
poses. Each half of the particles is refined from the mean of those that agree and were made from it.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hoarfrost.evaluation.align import align
from hoarfrost.maths.fsc import fourier_shell_correlation, resolution_A
from hoarfrost.model.quadratic import Mixture
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.starts.same_poses import WITHIN_DEG, orientations_of, share_alike

STARTS = "starts.json"
# Maps agree up to the shell where their FSC falls below this, as a map does with a known structure.
FSC_OF_TWO_MAPS = 0.5
# Any two lumps of the same size agree in the lowest shells after alignment; right starts agree further.
LEAST_SHELLS_IN_COMMON = 5.0
# In nats a particle. Annealed starts on pure noise all come to one ball, which explains nothing; and starts whose
# orientations are not known come to one that explains no more than its spherical average does.
LEAST_GAIN = 0.5


@dataclass(frozen=True)
class StartsResult:
    """What several starts came to.

    `gains` are nats per held-out particle over an empty map, all at the coarsest band limit that any start ended with.
    `resolution_A` is where the FSC of each start's map with the chosen one falls below 0.5, None for the chosen.
    `same_poses` is the share of held-out particles whose orientations under the two are within 10° of each other, and
    `by_chance` that which chance would give. `chosen` is the start of the highest gain. With a single start all are
    empty.
    """

    gains: tuple[float, ...] = ()
    resolution_A: tuple[float | None, ...] = ()
    agrees: tuple[bool, ...] = ()
    chosen: int = 0
    same_poses: tuple[float | None, ...] = ()
    by_chance: tuple[float | None, ...] = ()

    @property
    def n_agreeing(self) -> int:
        """Starts that agree with the chosen one, itself included."""
        return sum(self.agrees)

    def summary(self) -> str:
        """Like "2 of 3 agree, to 48 Å", the resolution being the finest of those that agree."""
        limits_A = [r for r, agrees in zip(self.resolution_A, self.agrees, strict=True) if agrees and r is not None]
        limit = f", to {min(limits_A):.0f} Å" if limits_A else ""
        return f"{self.n_agreeing} of {len(self.gains)} agree{limit}"

    def poses_summary(self) -> str | None:
        """Like "two starts give 71% of the particles orientations within 10°, chance 0.03%": the two most alike."""
        shares = zip(self.same_poses, self.by_chance, strict=True)
        pairs = [(same, chance) for same, chance in shares if same is not None and chance is not None]
        if not pairs:
            return None
        same, chance = max(pairs)
        told = f"two starts give {100 * same:.2g}% of the particles orientations within {WITHIN_DEG:.0f}°"
        return f"{told}, chance {100 * chance:.2g}%"


@dataclass(frozen=True)
class StartMaps:
    """What a start, or several that agree, came to: `maps` good up to stage number `stage`.

    `gain` is the held-out one, in nats an image; `converged` is False where epochs ran out. `halves`
    (2, C, box, box, box) are maps of each half of the particles that know nothing of the other, where there are any.
    """

    maps: Mixture
    stage: int
    gain: float
    converged: bool
    halves: Tensor | None = None


def compare(env: Env, found: Sequence[StartMaps], start: int) -> tuple[StartMaps, StartsResult]:
    """The best of several starts and how they compare, at the coarsest band limit of any; `start` is the latest.

    What is given back is the mean of those that agree where that explains held-out particles better, and the means of
    those of either half.
    """
    stage = min(of_start.stage for of_start in found)
    band = env.band(stage, env.first_symmetry, start=start)
    every = [of_start.maps.resized(band.box) for of_start in found]
    judged = [env.judge(band, maps.volumes, maps.log_shares) for maps in every]
    gains = [of_start.gain for of_start in judged]
    chosen = max(range(len(found)), key=gains.__getitem__)
    best, reference = found[chosen], every[chosen].volumes
    coarsest_A = env.length_A / min(LEAST_SHELLS_IN_COMMON, band.r_max - 0.5)
    aligned: list[Tensor] = []
    resolutions: list[float | None] = []
    for number, maps in enumerate(every):
        if number == chosen:
            aligned.append(reference)
            resolutions.append(None)
            continue
        volumes = env.team.once(partial(onto, reference, maps.volumes), maps.volumes)
        # Turned onto another, a map has the symmetry that starts keep to about other axes, if slightly.
        volumes = torch.stack([band.group(volume) for volume in volumes])
        aligned.append(volumes)
        found_A = env.team.once_number(partial(agreement_A, volumes, reference, env.length_A))
        # Maps hold a little beyond the band limit, which their ends in space put there.
        resolutions.append(max(found_A, env.length_A / band.r_max))
    oriented = [orientations_of(env, band, volumes, best.maps.log_shares) for volumes in aligned]
    same, by_chance = (
        tuple(None if of is oriented[chosen] else share_alike(env, of, oriented[chosen], step) for of in oriented)
        for step in range(2)
    )
    say_something = min(gains[chosen], judged[chosen].beyond_sphere) > LEAST_GAIN
    agrees = tuple(a is None or (say_something and a < coarsest_A) for a in resolutions)
    result = StartsResult(tuple(gains), tuple(resolutions), agrees, chosen, same, by_chance)
    if result.n_agreeing == 1:
        return best, result
    agreeing = [number for number, agree in enumerate(agrees) if agree]
    mean = torch.stack([aligned[number] for number in agreeing]).mean(dim=0)
    gain = env.judge(band, mean, best.maps.log_shares).gain
    if gain > gains[chosen]:
        best = StartMaps(Mixture(mean, best.maps.log_shares), stage, gain, best.converged)
    of_half = [[aligned[number] for number in agreeing if env.half_of_start(number) == half] for half in range(2)]
    halves = torch.stack([torch.stack(each).mean(dim=0) for each in of_half]) if all(of_half) else None
    return dataclasses.replace(best, halves=halves), result


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
