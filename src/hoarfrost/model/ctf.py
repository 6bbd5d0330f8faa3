"""The contrast transfer function of a thin, weak phase object, astigmatic and with a phase plate.

    C(k) = √(1−w²) sin χ + w cos χ                      protein positive for underfocus
    χ    = π λ Δf(φ) k² − ½ π Cs λ³ k⁴ + phase shift
    Δf(φ) = ½ [dfU + dfV + (dfU − dfV) cos 2(φ − φ_ast)]

See Rohou & Grigorieff (2015), J. Struct. Biol. 192, 216, equations 1–4 (their sign is the opposite: protein black).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.rows import Rows

ELECTRON_CHARGE_C = 1.602176634e-19
ELECTRON_MASS_KG = 9.1093837015e-31
PLANCK_J_S = 6.62607015e-34
LIGHT_SPEED_M_S = 299792458.0


@dataclass(frozen=True)
class CTFParameters(Rows):
    """Microscope parameters of n images, one float64 tensor of shape (n,) each. Underfocus is positive."""

    defocus_u_A: Tensor
    defocus_v_A: Tensor
    defocus_angle_deg: Tensor
    voltage_kV: Tensor
    cs_mm: Tensor
    amplitude_contrast: Tensor
    phase_shift_deg: Tensor

    def __len__(self) -> int:
        return int(self.defocus_u_A.shape[0])


def electron_wavelength_A(voltage_kV: Tensor) -> Tensor:
    """Relativistic de Broglie wavelength in Å for an acceleration voltage in kV, same shape and dtype.

    λ = h / √(2 m e U (1 + e U / 2 m c²)); 0.0197 Å at 300 kV.
    """
    potential_V = voltage_kV * 1e3
    relativistic = 1 + ELECTRON_CHARGE_C / (2 * ELECTRON_MASS_KG * LIGHT_SPEED_M_S**2) * potential_V
    # Constants first: 2 m e alone is 0 in float32.
    at_one_volt_A = PLANCK_J_S / math.sqrt(2 * ELECTRON_MASS_KG * ELECTRON_CHARGE_C) * 1e10
    return at_one_volt_A / torch.sqrt(potential_V * relativistic)


def evaluate_ctf(parameters: CTFParameters, frequencies_per_A: Tensor, phase: Tensor | None = None) -> Tensor:
    """CTF of n images at given spatial frequencies: (n, ...) float64.

    `frequencies_per_A` has shape (..., 2), columns kx and ky in 1/Å. `phase` (n, ...), in radians, is added to χ.
    """
    k = frequencies_per_A.to(torch.float64)
    k_squared = k.square().sum(-1)
    azimuth = torch.atan2(k[..., 1], k[..., 0])

    def per_image(value: Tensor) -> Tensor:
        return value.to(torch.float64).reshape(-1, *([1] * k_squared.ndim))

    wavelength_A = per_image(electron_wavelength_A(parameters.voltage_kV))
    u, v = per_image(parameters.defocus_u_A), per_image(parameters.defocus_v_A)
    astigmatism_rad = per_image(parameters.defocus_angle_deg) * (math.pi / 180)
    defocus_A = 0.5 * (u + v + (u - v) * torch.cos(2 * (azimuth - astigmatism_rad)))
    cs_A = per_image(parameters.cs_mm) * 1e7
    chi = (
        math.pi * wavelength_A * defocus_A * k_squared
        - 0.5 * math.pi * cs_A * wavelength_A**3 * k_squared**2
        + per_image(parameters.phase_shift_deg) * (math.pi / 180)
    )
    chi = chi if phase is None else chi + phase
    w = per_image(parameters.amplitude_contrast)
    return torch.sqrt(1 - w**2) * torch.sin(chi) + w * torch.cos(chi)
