"""The defocus of each particle, with a prior about its micrograph's.

A particle Δ deeper than told has the phase δ = π λ Δ k² further in its CTF c, whose derivative by χ is s:

    E(Δ) = Σ_k 2 a (c cos δ + s sin δ) − p (c cos δ + s sin δ)²      a = Re m, with m and p of `few_poses.transfer`

which depends on the direction of k through four sums over each circle alone. Δ is normal about a mean of its
micrograph, and that normal about none: Δ ~ N(μ, σ_w²), μ ~ N(0, σ_b²). All integrals are sums over a grid of Δ.

Frequencies are split by direction into two sets. What Δ found by one gains in the other is no noise: by it both
deviations are chosen, and whether any particle is moved at all. Δ is counted from what the file tells in every fit, as
a fit before has seen both sets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.model.ctf import electron_wavelength_A
from hoarfrost.model.few_poses.transfer import TransferEvidence
from hoarfrost.reconstruction.optics.gain import Gain

# Å; particles in thicker ice than this are not to be seen.
LARGEST_CHANGE_A = 1000.0
# Of the phase at the band limit, in radians, between points of the grid.
STEP_RAD = 0.2
# Directions of a half circle are dealt to two sets in so many sectors: neighbours share noise, as images are masked.
SECTORS = 16
DEVIATIONS_A = (0.0, 25.0, 50.0, 100.0, 200.0, 400.0)


def changes_A(finest_A: float, voltage_kV: Tensor) -> Tensor:
    """The grid of Δ for a band limit of that detail, zero in the middle: (G,) float64."""
    per_A = math.pi * float(electron_wavelength_A(voltage_kV).max()) / finest_A**2
    reach = math.ceil(LARGEST_CHANGE_A * per_A / STEP_RAD)
    return torch.arange(-reach, reach + 1, dtype=torch.float64) * (LARGEST_CHANGE_A / reach)


def log_likelihood(
    seen: TransferEvidence, ctf: Tensor, slope: Tensor, disc: FourierDisc, phase_per_A: Tensor, grid_A: Tensor
) -> Tensor:
    """E(Δ) − E(0) of b images by either set of directions: float32 (b, 2, G).

    `ctf` c and `slope` s (b, K); `phase_per_A` (b,) is δ / Δ at a radius of one Fourier pixel.
    """
    device, match = ctf.device, seen.match.real
    circles, circle = torch.unique(disc.coordinates.square().sum(dim=1), return_inverse=True)
    kx, ky = disc.coordinates.to(torch.float64).unbind(1)
    sector = (torch.atan2(ky, kx) / math.pi * SECTORS).floor().to(torch.int64) % 2
    place = (2 * circle + sector).to(device)
    harmonics = (
        2 * match * ctf,
        2 * match * slope,
        seen.power * (slope.square() - ctf.square()) / 2,
        -seen.power * ctf * slope,
    )
    sums = torch.zeros(len(ctf), 4, 2 * len(circles), device=device)
    for number, values in enumerate(harmonics):
        sums[:, number].index_add_(1, place, values.to(sums))
    sums = sums.view(len(ctf), 4, len(circles), 2)
    found = torch.empty(len(ctf), 2, len(grid_A), device=device)
    for per_A in torch.unique(phase_per_A):
        rows = (phase_per_A == per_A).to(device)
        angle = (per_A * circles[:, None] * grid_A).to(device)
        turned = torch.stack([angle.cos() - 1, angle.sin(), (2 * angle).cos() - 1, (2 * angle).sin()])
        found[rows] = torch.einsum("bhcs,hcg->bsg", sums[rows], turned.to(sums))
    return found


def about(curves: Tensor, grid_A: Tensor, change_A: Tensor) -> Tensor:
    """Curves (n, 2, G) of particles that are deeper by `change_A` (n,) than told, as curves of Δ from what is told."""
    moved = [_at(curves.flatten(0, 1), grid_A, (point - change_A).repeat_interleave(2)) for point in grid_A]
    found = torch.stack(moved, dim=1).view(curves.shape)
    return (found - found[:, :, len(grid_A) // 2, None]).to(curves)


@dataclass(frozen=True)
class DefocusFit:
    """What was found: changes Δ (n,) in Å, the deviations between micrographs and within one, and what they gain."""

    change_A: Tensor
    between_A: float
    within_A: float
    gain: Gain


def fit_defocus(curves: Tensor, grid_A: Tensor, micrograph: Tensor) -> DefocusFit:
    """The changes that curves (n, 2, G) of particles in micrographs (n,) ask for, zero where none is sure to gain."""
    best, chosen = Gain.none(), (0.0, 0.0)
    for within_A in DEVIATIONS_A:
        for between_A in DEVIATIONS_A:
            if within_A == between_A == 0:
                continue
            gains = torch.zeros(len(curves), dtype=torch.float64)
            for by in range(2):
                found = posterior_mean_A(curves[:, by], grid_A, micrograph, between_A, within_A)
                gains += _at(curves[:, 1 - by], grid_A, found)
            gain = Gain.of(gains)
            if gain.mean > best.mean:
                best, chosen = gain, (between_A, within_A)
    if not best.is_sure:
        return DefocusFit(torch.zeros(len(curves), dtype=torch.float64), 0.0, 0.0, best)
    return DefocusFit(posterior_mean_A(curves.sum(dim=1), grid_A, micrograph, *chosen), *chosen, best)


def posterior_mean_A(curves: Tensor, grid_A: Tensor, micrograph: Tensor, between_A: float, within_A: float) -> Tensor:
    """The mean of each particle's Δ given the log-likelihoods (n, G) of all in its micrograph: (n,) float64."""
    curves = curves.to(torch.float64)
    likelihood = (curves - curves.amax(dim=1, keepdim=True)).exp()
    # Of Δ, rows, given μ, columns.
    given_mean = _normal(grid_A[:, None] - grid_A, within_A)
    evidence = (likelihood @ given_mean).clamp(min=1e-300)
    mean = (likelihood * grid_A) @ given_mean / evidence
    _, number = torch.unique(micrograph, return_inverse=True)
    of_all = torch.zeros(int(number.max()) + 1, len(grid_A), dtype=torch.float64)
    of_all.index_add_(0, number, evidence.log())
    of_all += _normal(grid_A[:, None], between_A)[:, 0].clamp(min=1e-300).log()
    return (of_all.softmax(dim=1)[number] * mean).sum(dim=1)


def _normal(distance_A: Tensor, deviation_A: float) -> Tensor:
    """Normal probabilities of the rows of a grid at distances from each column's mean, which add up to 1."""
    return (-(distance_A.square()) / (2 * max(deviation_A, 1e-3) ** 2)).softmax(dim=0)


def _at(curves: Tensor, grid_A: Tensor, change_A: Tensor) -> Tensor:
    """Curves (n, G) at Δ (n,), between the points of the grid on a line; beyond its ends as there."""
    place = ((change_A - grid_A[0]) / (grid_A[1] - grid_A[0])).clamp(0, len(grid_A) - 1)
    below = place.floor().to(torch.int64).clamp(0, len(grid_A) - 2)
    part = place - below
    low, high = (curves.gather(1, at[:, None])[:, 0].to(torch.float64) for at in (below, below + 1))
    return low + part * (high - low)
