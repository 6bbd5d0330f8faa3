"""The axes of a point group in a map that was made without it.

With V̂ the map's transform, n its box, R an orientation and c a centre, the map in the group's frame is

    W(x) = V(Rᵀ x + c)        Ŵ(k) = V̂(Rᵀ k) exp(2πi k·R c / n)

and (R, c) are those of the highest mean correlation between Ŵ(k) and Ŵ(gᵀ k) over the rotations g. The density's centre
of mass lies on every axis, so the search begins there; R is tried all over SO(3) and the best climb, with c, by the
simplex of Nelder & Mead (1965).
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from hoarfrost.maths.fourier import fft3_centred, ifft3_centred, radius_grid
from hoarfrost.maths.rotations import rotation_grid, rotations_from_vectors, separate_maxima
from hoarfrost.nufft.sampler import SpectrumSampler
from hoarfrost.symmetry.point_group import PointGroup

# Rotations of the search, about 15° apart: within reach of a climb up to SEARCH_R_MAX.
N_ROTATIONS = 4500
SEARCH_R_MAX = 6.0
# Rotations that are compared in the search; the climb compares all.
N_COMPARED = 4
N_CLIMBED = 6
ROTATIONS_PER_CHUNK = 100


@dataclass(frozen=True)
class Axes:
    """`rotation` R (3, 3) and `centre` c (3,) as (x, y, z) in voxels from n // 2, float64.

    `correlation` is that of the map with itself turned about the axes, over the group's rotations but the identity.
    """

    rotation: Tensor
    centre: Tensor
    correlation: float


def find_axes(volume: Tensor, group: PointGroup, r_max: float) -> Axes:
    """Where a real volume (n, n, n) of positive density has the group's axes, judged by what it holds up to r_max.

    They are looked for by what is coarser than the sixth Fourier pixel, which is what the correlation is of, and then
    placed by all.
    """
    volume = volume.to("cpu", torch.float32)
    compared = _Comparison(volume, min(r_max, SEARCH_R_MAX))
    centre = centre_of_mass(volume)
    others = group.rotations[1:]
    few = others[torch.linspace(0, len(others) - 1, min(N_COMPARED, len(others))).round().long()]
    rotations = rotation_grid(N_ROTATIONS)
    chunks = torch.split(rotations, ROTATIONS_PER_CHUNK)
    scores = torch.cat([compared(chunk, centre.expand(len(chunk), 3), few) for chunk in chunks])
    best = Axes(rotations[0], centre, -math.inf)
    for index in separate_maxima(scores, rotations, N_CLIMBED):
        found = _climb(compared, Axes(rotations[index], centre, 0.0), others)
        best = max(best, found, key=lambda axes: axes.correlation)
    if r_max > SEARCH_R_MAX:
        finer = _climb(_Comparison(volume, r_max), best, others, size=0.3, most=150)
        best = dataclasses.replace(finer, correlation=best.correlation)
    return best


def correlation_about(volume: Tensor, group: PointGroup, r_max: float, rotation: Tensor, centre: Tensor) -> float:
    """The correlation that `find_axes` would give for axes at `rotation` (3, 3) and `centre` (3,), in voxels."""
    compared = _Comparison(volume.to("cpu", torch.float32), min(r_max, SEARCH_R_MAX))
    return float(compared(rotation[None], centre[None], group.rotations[1:])[0])


def in_frame(volume: Tensor, axes: Axes) -> Tensor:
    """W(x) = V(Rᵀ x + c), the volume (n, n, n) with its axes where the group has them."""
    n = volume.shape[-1]
    points = _frequencies(n)
    sampled = SpectrumSampler(volume.to("cpu", torch.float32).unsqueeze(0), width=6)(points @ axes.rotation)[:, 0]
    angle = 2 * math.pi / n * (points @ (axes.rotation @ axes.centre))
    spectrum = sampled * torch.polar(torch.ones_like(angle), angle).to(sampled.dtype)
    spectrum = spectrum.view(n, n, n) * (radius_grid(n, 3) < n / 2)
    return ifft3_centred(spectrum).real.to(volume)


def centre_of_mass(volume: Tensor) -> Tensor:
    """Of what is positive, from the origin at n // 2: (x, y, z) in voxels, float64."""
    n = volume.shape[-1]
    mass = volume.clamp(min=0).to(torch.float64).flatten()
    total = mass.sum().clamp(min=1e-30)
    centre: Tensor = (mass @ _frequencies(n)) / total
    return centre


def _frequencies(n: int) -> Tensor:
    """(x, y, z) of each point of a grid (n, n, n) from its origin: (n³, 3) float64."""
    axis = torch.arange(n, dtype=torch.float64) - n // 2
    return torch.cartesian_prod(axis, axis, axis).flip(1)


class _Comparison:
    """Correlation of a map with itself turned about an axis, in a band of frequencies.

    Shells are divided by the root of their amplitude, between plain correlation, which sees the first shells only, and
    phase correlation, which shells of noise would rule.
    """

    def __init__(self, volume: Tensor, r_max: float) -> None:
        self._box = volume.shape[-1]
        spectrum = fft3_centred(volume)
        radius = radius_grid(self._box, 3)
        shell = radius.round().long()
        power = torch.bincount(shell.flatten(), spectrum.abs().square().flatten()) / torch.bincount(shell.flatten())
        whitened = spectrum * power.clamp(min=1e-30).pow(-0.25)[shell].to(spectrum.dtype) * (radius <= r_max + 1)
        self._sampler = SpectrumSampler(ifft3_centred(whitened).real.unsqueeze(0), width=3)
        points = _frequencies(2 * math.floor(r_max) + 1)
        # Past the middle lies one of each pair ±k.
        half = points[len(points) // 2 + 1 :]
        self._points = half[half.norm(dim=1) <= r_max]

    def __call__(self, rotations: Tensor, centres: Tensor, others: Tensor) -> Tensor:
        """Mean correlation over `others` (g, 3, 3), for rotations (m, 3, 3) and centres (m, 3): (m,)."""
        every = torch.cat([torch.eye(3, dtype=torch.float64).unsqueeze(0), others])
        # Rows: (Rᵀ gᵀ k)ᵀ = kᵀ g R.
        frames = every.unsqueeze(1) @ rotations
        places = torch.einsum("kx,gmxy->gmky", self._points, frames)
        values = self._sampler(places.flatten(0, 2).to(torch.float32))[:, 0].view(places.shape[:3])
        angle = 2 * math.pi / self._box * torch.einsum("gmky,my->gmk", places, centres)
        values = values * torch.polar(torch.ones_like(angle), angle).to(values.dtype)
        norms = values.abs().square().sum(dim=2).sqrt().clamp(min=1e-30)
        products = (values[:1].conj() * values[1:]).real.sum(dim=2) / (norms[:1] * norms[1:])
        return products.mean(dim=0)


def _climb(compared: _Comparison, start: Axes, others: Tensor, size: float = 1.0, most: int = 400) -> Axes:
    """The local maximum of the correlation with all `others` near `start`, by steps of `size` at first."""

    def moved(step: np.ndarray) -> tuple[Tensor, Tensor]:
        numbers = torch.from_numpy(step)
        # A voxel and a tenth of a radian are steps of a like size.
        return start.rotation @ rotations_from_vectors(numbers[None, :3] / 10)[0], start.centre + numbers[3:]

    def loss(step: np.ndarray) -> float:
        rotation, centre = moved(step)
        return -float(compared(rotation.unsqueeze(0), centre.unsqueeze(0), others)[0])

    simplex = size * np.vstack([np.zeros(6), np.eye(6)])
    options = {"initial_simplex": simplex, "maxfev": most, "xatol": 1e-2, "fatol": 1e-5}
    found = minimize(loss, np.zeros(6), method="Nelder-Mead", options=options)
    return Axes(*moved(found.x), -float(found.fun))
