"""What the evidence of a pass comes to: optics that explain particles better, and the words for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.model.ctf import electron_wavelength_A
from hoarfrost.model.few_poses.stretch import StretchQuadratics
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.optics.defocus import DefocusFit, about, changes_A, fit_defocus
from hoarfrost.reconstruction.optics.even import ASTIGMATISM, N_TERMS, OF_GROUP, EvenFit, EvenQuadratics, fit_even
from hoarfrost.reconstruction.optics.fitted import FittedOptics, told_defocus_A
from hoarfrost.reconstruction.optics.gain import Gain
from hoarfrost.reconstruction.optics.odd import COMA, TREFOIL, OddFit, OddSums, fit_odd, odd_basis
from hoarfrost.reconstruction.optics.stretch import StretchFit, fit_stretch

# Phases at the band limit, in radians. Where defocus moves them by more, other even terms wait for the next fit, as
# their quadratics are about the wrong defocus; and refinement has to see the particles again.
SMALL_RAD = 0.5


@dataclass(frozen=True)
class Evidence:
    """What n particles show: `curves` (n, 2, G), `even` and `stretch` as in their modules, the sums `odd` of g groups.

    `is_seen` (n,) tells which were looked at.
    """

    curves: Tensor
    even: EvenQuadratics
    odd: OddSums
    stretch: StretchQuadratics
    is_seen: Tensor

    @classmethod
    def none(cls, n: int, grid: int, groups: int, size: int) -> Evidence:
        """Before the first particle."""
        is_seen = torch.zeros(n, dtype=torch.bool)
        of_groups, stretch = OddSums.none(groups, size), StretchQuadratics.none(n)
        return cls(torch.zeros(n, 2, grid), EvenQuadratics.none(n), of_groups, stretch, is_seen)


@dataclass(frozen=True)
class Decision:
    """New `optics`, or None where those before are kept, and a `message` for the user.

    `is_large` says that maps made with the optics before are much worse than they could be, and `is_promising` that
    more particles may show more.
    """

    optics: FittedOptics | None
    message: str
    is_large: bool = False
    is_promising: bool = False


def decided(env: Env, evidence: Evidence, before: FittedOptics, r_max: float) -> Decision:
    """What is sure to explain particles better; the first process decides."""
    team, n = env.team, env.settings.n_particles
    stack, seen = env.source.stack, evidence.is_seen.nonzero()[:, 0]
    finest_A, wavelength_A = env.length_A / r_max, float(electron_wavelength_A(before.ctf.voltage_kV).max())
    group, groups = stack.group, len(evidence.odd.count)
    micrograph, half = stack.micrograph[seen], env.folds.half[seen]
    grid_A, changed_A = changes_A(finest_A, before.ctf.voltage_kV), before.mean_defocus_A - told_defocus_A(stack)
    defocus = fit_defocus(about(evidence.curves[seen], grid_A, changed_A[seen]), grid_A, micrograph)
    moved_A = defocus.change_A - changed_A[seen] if defocus.gain.is_sure else torch.zeros_like(defocus.change_A)
    moved_rad = math.pi * wavelength_A / finest_A**2 * float(moved_A.square().mean().sqrt())
    basis = odd_basis(FourierDisc(env.settings.box, r_max))
    odd = [fit_odd(evidence.odd, number, basis, finest_A) for number in range(groups)]
    stretch = [
        fit_stretch(evidence.stretch[seen[group[seen] == number]], half[group[seen] == number])
        for number in range(groups)
    ]
    even = EvenFit(torch.zeros(len(seen), N_TERMS - 1, dtype=torch.float64), Gain.none())
    if moved_rad < SMALL_RAD:
        even = fit_even(evidence.even[seen], micrograph, group[seen], half)
    gains = (defocus.gain, even.gain, *(fit.gain for fit in odd), *(fit.gain for fit in stretch))
    is_promising = bool(team.once_number(lambda: any(gain.is_promising for gain in gains)))
    if not team.once_number(lambda: any(gain.is_sure for gain in gains)):
        message = f"Optics as they are: at {finest_A:.1f} Å no others explain particles better"
        return Decision(None, message, is_promising=is_promising)
    change_A = torch.zeros(n, dtype=torch.float64).index_copy_(0, seen, moved_A)
    coefficients = torch.zeros(n, N_TERMS - 1, dtype=torch.float64).index_copy_(0, seen, even.coefficients)
    of_groups = torch.zeros(groups, N_TERMS - 3, dtype=torch.float64)
    of_groups[group[seen]] = even.coefficients[:, OF_GROUP]
    change_A, coefficients, of_groups = (team.same(found) for found in (change_A, coefficients, of_groups))
    of_odd = team.same(torch.stack([fit.coefficients for fit in odd]))
    after = before.with_defocus(change_A).with_astigmatism(coefficients, 1 / finest_A)
    after = after.with_aberrations(group, of_odd, of_groups, 1 / finest_A)
    of_stretch = team.same(torch.stack([fit.stretch for fit in stretch]))
    if bool(of_stretch.any()):
        after = after.with_stretch(group, of_stretch)
    told = [*_told(before, after, group, defocus, odd, even, finest_A), *_told_of_stretch(stretch)]
    # A stretch moves the edge of a particle by so much.
    at_edge_rad = math.pi * env.settings.diameter_A / finest_A
    largest_rad = max(
        moved_rad,
        float(of_odd[:, COMA.start :].norm(dim=1).max()),
        float(coefficients.norm(dim=1).max()),
        at_edge_rad * float(of_stretch.norm(dim=1).max()),
    )
    is_large = team.once_number(lambda: largest_rad) >= SMALL_RAD
    return Decision(
        after, f"Optics, with what others gain by them in nats an image: {'; '.join(told)}", is_large, is_promising
    )


def _told(
    before: FittedOptics,
    after: FittedOptics,
    group: Tensor,
    defocus: DefocusFit,
    odd: list[OddFit],
    even: EvenFit,
    finest_A: float,
) -> list[str]:
    told = []
    if defocus.gain.is_sure:
        moved_A = float(defocus.change_A.square().mean().sqrt())
        told.append(
            f"defocus of each particle, {moved_A:.0f} Å from the file's at the root mean square ({defocus.gain})"
        )
    for number, fit in enumerate(odd):
        if fit.gain.is_sure:
            particle = int((group == number).nonzero()[0, 0])
            tilts = [" ".join(f"{tilt:.2f}" for tilt in of.beam_tilt_mrad(particle)) for of in (before, after)]
            trefoil = float(fit.coefficients[TREFOIL].norm())
            where = "" if len(odd) == 1 else f" of group {number + 1}"
            told.append(
                f"beam tilt{where} from {tilts[0]} to {tilts[1]} mrad, trefoil by {trefoil:.2f} rad at {finest_A:.1f} "
                f"Å ({fit.gain})"
            )
    if even.gain.is_sure:
        parts = []
        if bool(even.coefficients[:, ASTIGMATISM].any()):
            per_A = math.pi * float(electron_wavelength_A(before.ctf.voltage_kV).max()) / finest_A**2
            moved_A = float(even.coefficients[:, ASTIGMATISM].norm(dim=1).square().mean().sqrt()) / per_A
            parts.append(f"astigmatism of each micrograph, by {moved_A:.0f} Å at the root mean square")
        if bool(even.coefficients[:, OF_GROUP].any()):
            size = float(even.coefficients[:, OF_GROUP].norm(dim=1).max())
            parts.append(f"even aberrations, by {size:.2f} rad at {finest_A:.1f} Å")
        told.append(f"{' and '.join(parts)} ({even.gain})")
    return told


def _told_of_stretch(fits: list[StretchFit]) -> list[str]:
    told = []
    for number, fit in enumerate(fits):
        if fit.gain.is_sure:
            where = "" if len(fits) == 1 else f" of group {number + 1}"
            percent = 200 * float(fit.stretch.norm())
            told.append(f"magnification{where} anisotropic by {percent:.1f} % more ({fit.gain})")
    return told
