"""Aberrations beyond defocus, astigmatism and Cs: beam tilt and Zernike polynomials, as RELION's files tell them.

An odd aberration shifts the phases of an image, an even one the argument of its CTF:

    Î(k) = exp(i φ(k)) C(k) V̂(k)     φ = Σ odd_i Z_i(k) − 2π Cs λ² k² (k·τ)     χ′(k) = χ(k) − Σ even_i Z_i(k)

with τ the beam tilt, and Z_i = R(|k|) cos mφ, or sin |m|φ for m < 0, the Zernike polynomials of k in 1/Å, not scaled to
any disc. Their order is by n, and by m within it: n = 1, 3, 5 … of the odd ones, 0, 2, 4 … of the even.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.model.ctf import CTFParameters, electron_wavelength_A


@dataclass(frozen=True)
class Aberrations:
    """Those of n particles, which are in a `group` (n,) int64 of g each.

    Float64 of each group: `beam_tilt_mrad` (g, 2), x and y; `odd` (g, m) and `even` (g, m), coefficients in radians.
    """

    group: Tensor
    beam_tilt_mrad: Tensor
    odd: Tensor
    even: Tensor

    @property
    def has_odd(self) -> bool:
        """Whether phases of images are shifted at all."""
        return bool(self.beam_tilt_mrad.any() or self.odd.any())

    @property
    def has_even(self) -> bool:
        """Whether the argument of a CTF changes at all."""
        return bool(self.even.any())

    def image_phase(self, particles: Tensor, ctf: CTFParameters, frequencies_per_A: Tensor) -> Tensor:
        """φ of the chosen particles (b,), whose CTF parameters these are, at frequencies (K, 2): (b, K) float64."""
        k, group = frequencies_per_A.to(torch.float64), self.group[particles]
        tilt_rad = self.beam_tilt_mrad[group] * 1e-3
        strength = 2 * math.pi * ctf.cs_mm * 1e7 * electron_wavelength_A(ctf.voltage_kV).square()
        of_tilt = strength[:, None] * k.square().sum(dim=1) * (tilt_rad @ k.T)
        return (self.odd @ _basis(k, self.odd.shape[1], _odd_orders))[group] - of_tilt

    def ctf_phase(self, particles: Tensor, frequencies_per_A: Tensor) -> Tensor:
        """What is added to χ of the chosen particles (b,) at frequencies (K, 2): (b, K) float64."""
        k = frequencies_per_A.to(torch.float64)
        return -(self.even @ _basis(k, self.even.shape[1], _even_orders))[self.group[particles]]


def zernike(n: int, m: int, frequencies_per_A: Tensor) -> Tensor:
    """The Zernike polynomial of order n and frequency m, |m| ≤ n of the same parity, at k in 1/Å (K, 2): (K,)."""
    k = frequencies_per_A.to(torch.float64)
    radius, angle, a = k.norm(dim=1), torch.atan2(k[:, 1], k[:, 0]), abs(m)
    radial = torch.zeros_like(radius)
    for j in range((n - a) // 2 + 1):
        ways = math.factorial(j) * math.factorial((n + a) // 2 - j) * math.factorial((n - a) // 2 - j)
        radial += (-1) ** j * math.factorial(n - j) / ways * radius ** (n - 2 * j)
    return radial * (torch.cos(a * angle) if m >= 0 else torch.sin(a * angle))


def _odd_orders(i: int) -> tuple[int, int]:
    """n and m of the i-th odd polynomial: 2, 4, 6 … of n = 1, 3, 5 …"""
    row = (math.isqrt(1 + 4 * i) - 1) // 2
    n = 2 * row + 1
    return n, 2 * (i - row * (row + 1)) - n


def _even_orders(i: int) -> tuple[int, int]:
    """n and m of the i-th even polynomial: 1, 3, 5 … of n = 0, 2, 4 …"""
    row = math.isqrt(i)
    return 2 * row, 2 * (i - row * row) - 2 * row


def _basis(k: Tensor, count: int, orders: Callable[[int], tuple[int, int]]) -> Tensor:
    """The first `count` polynomials of a parity at frequencies (K, 2): (count, K) float64."""
    rows = [zernike(*orders(i), k) for i in range(count)]
    return torch.stack(rows) if rows else torch.zeros(0, len(k), dtype=torch.float64)
