"""Several random starts: how many of their maps agree, and which explains the held-out particles best.

A start that ends in a wrong solution may look as fine as a right one by itself, and its half maps agree. But wrong
solutions differ from start to start, and the right one does not, but for its hand and its place; and particles that
no start was trained on tell which map explains them best. Starts are compared as soon as their images know their
poses, before the best of them is refined.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from hoarfrost.evaluate.align import align
from hoarfrost.fourier import fourier_resize
from hoarfrost.fsc import fourier_shell_correlation, resolution_A
from hoarfrost.reconstruct.loop import Optimised, Reconstruction

# Maps agree up to the shell where their FSC falls below this, as a map does with a known structure.
FSC_OF_TWO_MAPS = 0.5
# Any two lumps of the same size agree in the lowest shells after alignment. On beta-galactosidase right starts agree
# up to shell 5.5 to 6.5.
LEAST_SHELLS_IN_COMMON = 5.0


@dataclass(frozen=True)
class StartsResult:
    """What several starts came to.

    `gains` are nats per held-out particle over an empty map, all at the coarsest band limit that any start ended with.
    `resolution_A` is where the FSC of each start's map with the chosen one falls below 0.5, None for the chosen.
    `chosen` is the start that goes on, the one of the highest gain. With a single start all are empty.
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


def run_starts(run: Reconstruction) -> tuple[Optimised, StartsResult]:
    """Optimise from one random start after the other; go on with the best.

    Unless their number was asked for, they end as soon as the best so far agrees with another.
    """
    settings = run.settings
    found: list[Optimised] = []
    result = StartsResult()
    for number in range(settings.starts):
        run.begin(number)
        found.append(run.optimise())
        if number == 0:
            continue
        result = compare(run, found)
        run.say(f"Random starts so far: {result.summary()}")
        if settings.until_two_agree and result.n_agreeing > 1:
            run.share_done.skip_starts(number + 1)
            break
    return found[result.chosen], result


def compare(run: Reconstruction, found: list[Optimised]) -> StartsResult:
    """Judge the starts by the same particles at the same band limit, and each map against the best."""
    band = min((start.band for start in found), key=lambda band: band.r_max)
    held_out = run.source.images(run.team.share(run.held_out), band.disc)
    volumes = [fourier_resize(start.volume, band.box) for start in found]
    gains = [run.judge(band, volume, held_out).gain for volume in volumes]
    chosen = max(range(len(found)), key=gains.__getitem__)
    length_A = run.settings.box * run.settings.pixel_size_A
    coarsest_A = length_A / min(LEAST_SHELLS_IN_COMMON, band.r_max - 0.5)
    resolutions: list[float | None] = []
    agrees: list[bool] = []
    for number, volume in enumerate(volumes):
        if number == chosen:
            resolutions.append(None)
            agrees.append(True)
            continue
        found_A = run.team.number_from_first(partial(agreement_A, volume, volumes[chosen], length_A))
        resolutions.append(found_A)
        agrees.append(found_A < coarsest_A)
    return StartsResult(tuple(gains), tuple(resolutions), tuple(agrees), chosen)


def agreement_A(volume: Tensor, reference: Tensor, length_A: float) -> float:
    """Where the FSC of two maps (box, box, box) falls below 0.5, at best of all rotations, shifts and hands: in Å."""
    box = reference.shape[0]
    aligned = align(volume, reference).aligned
    fsc = fourier_shell_correlation(aligned, reference.to(aligned))
    return resolution_A(fsc, box, length_A / box, FSC_OF_TWO_MAPS)
