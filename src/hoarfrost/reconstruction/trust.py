"""Reasons not to trust a map, read off what the run has found out about it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from hoarfrost.evaluation.half_maps import HalfMapFSC
from hoarfrost.evaluation.views import CIRCLE_DEG
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.starts.agreement import StartsResult
from hoarfrost.reconstruction.symmetry.alike import Alike

# Nats an image. Of apoferritin, which tells least, wrong maps have none at the end and right ones two.
LEAST_BEYOND_SPHERE = 1.2
# Right maps turned about axes that they have correlate by 0.94 and more.
LEAST_CORRELATION = 0.85
# Even views have 0.17 there, side views of a long particle 0.3 to 0.5, those of maps that came out warped 0.6 and more.
MOST_ON_CIRCLE = 0.55
# FSC of two shells that counts as none, and of three further out that counts as some.
NONE_LEFT, BACK = 0.05, 0.3
# Any two halves agree in the shells before.
FIRST_SHELL = 3


@dataclass(frozen=True)
class Evidence:
    """What a run that has ended knows about its maps.

    `spent_epochs` are those that ended it before its work was done, if they did. `correlation` is that of the map with
    itself about the axes of the `symmetry` that was asked for. `judged` tells how well maps explain particles that they
    are not made from, in nats an image, and `refined` that of the held-out ones after refinement, which were explained
    by `gain_before` before it. `halves` tell how well the half maps of each class agree, and `alike` what was found of
    views that a map without symmetry makes alike; `on_circle` is the share of the particles seen from near one great
    circle (`evaluation.views.share_on_circle`).
    """

    starts: StartsResult = StartsResult()
    spent_epochs: float | None = None
    symmetry: str = "C1"
    correlation: float | None = None
    judged: HeldOut | None = None
    refined: HeldOut | None = None
    gain_before: float | None = None
    halves: Sequence[HalfMapFSC] = ()
    alike: Alike | None = None
    on_circle: float = 0.0

    def doubts(self) -> tuple[str, ...]:
        """What speaks against the maps, each with what to do, without a full stop."""
        return (
            *self._of_starts(),
            *self._of_epochs(),
            *self._of_orientations(),
            *self._of_refinement(),
            *self._of_symmetry(),
            *self._of_alike_views(),
            *self._of_views(),
            *self._of_curves(),
        )

    def _of_starts(self) -> Iterator[str]:
        if self.starts.n_agreeing == 1:
            yield (
                f"no two of {len(self.starts.agrees)} random starts agree, so do not trust this map; look at "
                "matches.png, remove bad particles, or try more --starts"
            )

    def _of_epochs(self) -> Iterator[str]:
        if self.spent_epochs is not None:
            yield (
                f"--epochs {self.spent_epochs:g} ended the run before its work was done, so the map may be coarse, or "
                "wrong; run it again with more --epochs, or with none"
            )

    def _of_orientations(self) -> Iterator[str]:
        if self.judged is not None and not self.judged.beyond_sphere >= LEAST_BEYOND_SPHERE:
            found = f"{self.judged.beyond_sphere:z.1f} ± {self.judged.beyond_sphere_standard_error:.1f}"
            yield (
                "the orientations are hardly known, so do not trust this map: it explains particles that it is not "
                f"made from little or no better than its own spherical average does ({found} nats a particle); give "
                "--diameter and --symmetry if you know them, or more particles"
            )

    def _of_refinement(self) -> Iterator[str]:
        after, before = self.refined, self.gain_before
        if after is not None and before is not None and after.surely_below(before):
            yield (
                f"refined, the map explains held-out particles less well than before ({after.gain:z.1f} nats a "
                f"particle, {before:z.1f} before), so its detail, or a symmetry that was imposed, may not be there"
            )

    def _of_symmetry(self) -> Iterator[str]:
        if self.correlation is not None and self.correlation < LEAST_CORRELATION:
            yield (
                f"turned about the axes of {self.symmetry} the map correlates with itself by {self.correlation:.2f} "
                "only, so the molecule may not have that symmetry; try --symmetry auto"
            )

    def _of_alike_views(self) -> Iterator[str]:
        alike = self.alike
        if alike is not None and alike.rise is not None and not alike.is_shown:
            yield (
                f"the map is nearly {alike.group}: its {alike.order} views look alike, {alike.told:.0%} of the "
                f"particles tell theirs, and one unit differs (by {alike.rise} a particle); differences between its "
                "units may be averaged out, and more particles would show them"
            )

    def _of_views(self) -> Iterator[str]:
        if self.on_circle > MOST_ON_CIRCLE:
            yield (
                f"{self.on_circle:.0%} of the particles are seen from within {CIRCLE_DEG:.0f}° of one great circle; "
                "only their likeness puts such views in order, so the map may be warped about the circle's axis though "
                "half maps agree; compare it with that of another --seed, and add views from elsewhere"
            )

    def _of_curves(self) -> Iterator[str]:
        for halves in self.halves:
            found = comes_back(halves.unmasked[: int(halves.r_max) + 1])
            if found is not None:
                gone_A, back_A = (halves.box * halves.pixel_size_A / shell for shell in found)
                yield (
                    f"half maps cease to agree at {gone_A:.1f} Å and agree again at {back_A:.1f} Å, which detail that "
                    "is real does not do; look at fsc.png, and trust the map to the coarser of the two at most"
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
