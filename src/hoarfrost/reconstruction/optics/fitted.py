"""The optics of particles as they were fitted: what their file tells, and what fits have added to it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import pad

from hoarfrost.model.aberrations import Aberrations
from hoarfrost.model.ctf import CTFParameters, electron_wavelength_A
from hoarfrost.model.few_poses.stretch import stretch_matrix
from hoarfrost.model.magnification import Magnification
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.optics.even import ASTIGMATISM
from hoarfrost.reconstruction.optics.odd import COMA, TREFOIL

# Coefficients of the polynomials up to n = 3 and n = 4, in the order of `model.aberrations`.
N_ODD, N_EVEN = 6, 9


@final
@dataclass(frozen=True)
class FittedOptics:
    """CTF parameters, aberrations and magnification of all particles after fits."""

    ctf: CTFParameters
    aberrations: Aberrations
    magnification: Magnification

    @classmethod
    def of(cls, stack: ParticleStack) -> FittedOptics:
        """As the file tells them."""
        return cls(stack.ctf, stack.aberrations, stack.magnification)

    def beam_tilt_mrad(self, particle: int) -> list[float]:
        """That of a particle, x and y."""
        found: list[float] = self.aberrations.beam_tilt_mrad[self.aberrations.group[particle]].tolist()
        return found

    @property
    def mean_defocus_A(self) -> Tensor:
        """That of each particle over all directions, (n,)."""
        return (self.ctf.defocus_u_A + self.ctf.defocus_v_A) / 2

    def told(self, stack: ParticleStack) -> str:
        """How these differ from what the particles' file tells, in words."""
        moved_A = float((self.mean_defocus_A - told_defocus_A(stack)).square().mean().sqrt())
        before, after = stack.table.optics.aberrations, self.aberrations
        tilts = (
            " ".join(f"{tilt:.2f}" for tilt in of.beam_tilt_mrad[int(of.group[0])].tolist()) for of in (before, after)
        )
        others = [
            name
            for name, told, found in (("trefoil", before.odd, after.odd), ("even terms", before.even, after.even))
            if found.shape != told.shape or bool((found[after.group] - torch.from_numpy(told[before.group])).any())
        ]
        parts = [f"defocus {moved_A:.0f} Å from the file's at the root mean square"] if moved_A >= 0.5 else []
        parts.append("beam tilt from {} to {} mrad".format(*tilts))
        matrices = self.magnification.matrices[self.magnification.group]
        if bool((matrices != torch.from_numpy(stack.table.optics.magnification)).any()):
            others.append("anisotropic magnification")
        return ", ".join([*parts, *others])

    def with_defocus(self, change_A: Tensor) -> FittedOptics:
        """With particles deeper by so many Å (n,)."""
        ctf = self.ctf
        moved = dataclasses.replace(ctf, defocus_u_A=ctf.defocus_u_A + change_A, defocus_v_A=ctf.defocus_v_A + change_A)
        return dataclasses.replace(self, ctf=moved)

    def with_astigmatism(self, coefficients: Tensor, edge_per_A: float) -> FittedOptics:
        """With what `even` found (n, 7), in radians at the spatial frequency `edge_per_A`."""
        ctf = self.ctf
        if not bool(coefficients[:, ASTIGMATISM].any()):
            return self  # another way to write the same angle would be a change in the file
        per_A = math.pi * electron_wavelength_A(ctf.voltage_kV) * edge_per_A**2
        twice = torch.deg2rad(2 * ctf.defocus_angle_deg)
        strength = (ctf.defocus_u_A - ctf.defocus_v_A) / 2
        x, y = (coefficients[:, ASTIGMATISM] / per_A[:, None]).unbind(1)
        x, y = x + strength * twice.cos(), y + strength * twice.sin()
        mean, strength = (ctf.defocus_u_A + ctf.defocus_v_A) / 2, torch.hypot(x, y)
        moved = dataclasses.replace(
            ctf,
            defocus_u_A=mean + strength,
            defocus_v_A=mean - strength,
            defocus_angle_deg=torch.rad2deg(torch.atan2(y, x) / 2),
        )
        return dataclasses.replace(self, ctf=moved)

    def with_stretch(self, group: Tensor, stretch: Tensor) -> FittedOptics:
        """With what `stretch` found (g, 2) of g groups, the particles' `group` (n,) from 0."""
        return dataclasses.replace(self, magnification=self.magnification.stretched(group, stretch_matrix(stretch)))

    def with_aberrations(self, group: Tensor, odd_fits: Tensor, even_fits: Tensor, edge_per_A: float) -> FittedOptics:
        """With what `odd` (g, 6) and `even` (g, 5) found of g groups, the particles' `group` (n,) from 0."""
        first = torch.stack([(group == number).nonzero()[0, 0] for number in range(len(odd_fits))])
        cs_A, voltage_kV = self.ctf.cs_mm[first] * 1e7, self.ctf.voltage_kV[first]
        tilt_mrad, odd = _odd_columns(odd_fits, cs_A, voltage_kV, edge_per_A)
        even = _even_columns(even_fits, edge_per_A)
        before = self.aberrations
        pairs, new_group = torch.unique(torch.stack([before.group, group]), dim=1, return_inverse=True)
        old, of_fit = pairs
        return dataclasses.replace(
            self,
            aberrations=Aberrations(
                new_group,
                before.beam_tilt_mrad[old] + tilt_mrad[of_fit],
                _sum(before.odd[old], odd[of_fit]),
                _sum(before.even[old], even[of_fit]),
            ),
        )


def told_defocus_A(stack: ParticleStack) -> Tensor:
    """The mean defocus of each particle as its file tells it, whatever optics the stack has, (n,)."""
    told = stack.table.optics
    return torch.from_numpy((told.defocus_u_A + told.defocus_v_A) / 2)


def _odd_columns(fits: Tensor, cs_A: Tensor, voltage_kV: Tensor, edge_per_A: float) -> tuple[Tensor, Tensor]:
    """Beam tilts (g, 2) in mrad and coefficients (g, 6); without a spherical aberration coma is no tilt."""
    per_rad = 2 * math.pi * cs_A * electron_wavelength_A(voltage_kV).square() * edge_per_A**3
    coma, trefoil = fits[:, COMA], fits[:, TREFOIL] / edge_per_A**3
    is_tilt = (per_rad > 0)[:, None]
    tilt_mrad = torch.where(is_tilt, -1e3 * coma / per_rad.clamp(min=1e-12)[:, None], 0.0)
    odd = torch.zeros(len(fits), N_ODD, dtype=torch.float64)
    # k³ cos α = (Z₃¹ + 2 Z₁¹) / 3, and so with sin α.
    left = torch.where(is_tilt, 0.0, coma / edge_per_A**3) / 3
    odd[:, [1, 0]], odd[:, [4, 3]] = 2 * left, left
    odd[:, [5, 2]] = trefoil
    return tilt_mrad, odd


def _even_columns(fits: Tensor, edge_per_A: float) -> Tensor:
    """Coefficients (g, 9), which are taken from χ, of k⁴, k⁴ cos 2α, k⁴ sin 2α, k⁴ cos 4α and k⁴ sin 4α (g, 5)."""
    round_, cos2, sin2, cos4, sin4 = (-fits / edge_per_A**4).unbind(1)
    even = torch.zeros(len(fits), N_EVEN, dtype=torch.float64)
    # k⁴ = (Z₄⁰ + 3 Z₂⁰ + 2 Z₀⁰) / 6 and k⁴ cos 2α = (Z₄² + 3 Z₂²) / 4.
    even[:, 6], even[:, 2], even[:, 0] = round_ / 6, round_ / 2, round_ / 3
    even[:, 7], even[:, 3] = cos2 / 4, 3 * cos2 / 4
    even[:, 5], even[:, 1] = sin2 / 4, 3 * sin2 / 4
    even[:, 8], even[:, 4] = cos4, sin4
    return even


def _sum(before: Tensor, added: Tensor) -> Tensor:
    """Both lists of coefficients, zeros where one is shorter; none at all where nothing is in either."""
    if not bool(added.any()):
        return before
    length = max(before.shape[1], added.shape[1])
    return pad(before, (0, length - before.shape[1])) + pad(added, (0, length - added.shape[1]))
