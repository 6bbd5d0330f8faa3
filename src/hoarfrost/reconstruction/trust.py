"""Reasons not to trust a map, read off what the run has found out about it."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from hoarfrost.evaluation.half_maps import HalfMapFSC
from hoarfrost.reconstruction.estimate.held_out import HeldOut

# Nats an image. Maps whose orientations are wrong have come to 0.0 to 0.3 at the end, right ones to 5 and more.
LEAST_BEYOND_SPHERE = 1.0
# FSC of two shells that counts as none, and of three further out that counts as some.
NONE_LEFT, BACK = 0.05, 0.3
# Any two halves agree in the shells before.
FIRST_SHELL = 3


def doubts(judged: HeldOut | None, halves: Sequence[HalfMapFSC]) -> tuple[str, ...]:
    """What speaks against a run's maps, a sentence each: how held-out particles are explained, and the maps' FSC."""
    return (*_of_orientations(judged), *(told for of_class in halves for told in _of_curve(of_class)))


def _of_orientations(judged: HeldOut | None) -> Iterator[str]:
    if judged is not None and not judged.beyond_sphere >= LEAST_BEYOND_SPHERE:
        yield (
            "The orientations are not known: the map explains held-out particles no better than its own spherical "
            f"average does ({judged.beyond_sphere:z.1f} ± {judged.beyond_sphere_standard_error:.1f} nats a particle)"
        )


def _of_curve(halves: HalfMapFSC) -> Iterator[str]:
    found = comes_back(halves.unmasked[: int(halves.r_max) + 1])
    if found is not None:
        length_A = halves.box * halves.pixel_size_A
        gone, back = found
        yield (
            f"The half maps cease to agree at {length_A / gone:.1f} Å and agree again at {length_A / back:.1f} Å, "
            "which detail that is real does not do"
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
