"""Reasons not to trust a map, read off what the run has found out about it."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from hoarfrost.evaluation.half_maps import HalfMapFSC
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.starts.agreement import StartsResult

# Nats an image. Maps whose orientations are wrong have come to 0.0 to 0.3 at the end, right ones to 5 and more.
LEAST_BEYOND_SPHERE = 1.0
# FSC of two shells that counts as none, and of three further out that counts as some.
NONE_LEFT, BACK = 0.05, 0.3
# Any two halves agree in the shells before.
FIRST_SHELL = 3


def doubts(
    starts: StartsResult, spent_epochs: float | None, judged: HeldOut | None, halves: Sequence[HalfMapFSC]
) -> tuple[str, ...]:
    """What speaks against the maps of a run that has ended, each with what to do, without a full stop.

    `spent_epochs` are those that ended the run before its work was done, if they did; `judged` tells how well the
    latest maps explain held-out particles, and `halves` how well the half maps of each class agree.
    """
    return (
        *_of_starts(starts),
        *_of_epochs(spent_epochs),
        *_of_orientations(judged),
        *(told for of_class in halves for told in _of_curve(of_class)),
    )


def _of_starts(starts: StartsResult) -> Iterator[str]:
    if starts.n_agreeing == 1:
        yield (
            f"no two of {len(starts.agrees)} random starts agree, so do not trust this map; look at matches.png, "
            "remove bad particles, or try more --starts"
        )


def _of_epochs(spent: float | None) -> Iterator[str]:
    if spent is not None:
        yield (
            f"--epochs {spent:g} ended the run before its work was done, so the map may be coarse, or wrong; run it "
            "again with more --epochs, or with none"
        )


def _of_orientations(judged: HeldOut | None) -> Iterator[str]:
    if judged is not None and not judged.beyond_sphere >= LEAST_BEYOND_SPHERE:
        yield (
            "the orientations are not known, so do not trust this map: it explains held-out particles no better than "
            f"its own spherical average does ({judged.beyond_sphere:z.1f} ± {judged.beyond_sphere_standard_error:.1f} "
            "nats a particle); give --diameter and --symmetry if you know them, or more particles"
        )


def _of_curve(halves: HalfMapFSC) -> Iterator[str]:
    found = comes_back(halves.unmasked[: int(halves.r_max) + 1])
    if found is not None:
        length_A = halves.box * halves.pixel_size_A
        gone, back = found
        yield (
            f"half maps cease to agree at {length_A / gone:.1f} Å and agree again at {length_A / back:.1f} Å, which "
            "detail that is real does not do; look at fsc.png, and trust the map to the coarser of the two at most"
        )


def comes_back(fsc: Tensor) -> tuple[int, int] | None:
    """The shells where a curve (shells,) has come down to nothing and where it is highest beyond, if that is high."""
    if len(fsc) < FIRST_SHELL + 2:
        return None
    gone = (fsc[FIRST_SHELL:].unfold(0, 2, 1).mean(dim=1) < NONE_LEFT).nonzero()
    if not len(gone) or len(fsc) - FIRST_SHELL - int(gone[0]) < 3:
        return None
    first = FIRST_SHELL + int(gone[0])
    beyond = fsc[first:].unfold(0, 3, 1).mean(dim=1)
    return (first, first + 1 + int(beyond.argmax())) if float(beyond.max()) > BACK else None
