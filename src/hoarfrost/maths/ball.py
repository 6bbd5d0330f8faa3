"""The coefficients of a real volume up to a radius, one of each pair ±k, as a list of points and values."""

import math

import torch
from torch import Tensor

from hoarfrost.maths.fourier import ifft3_centred


def half_ball(box: int, r_max: float) -> Tensor:
    """Integer frequencies (x, y, z) with |k| ≤ r_max, one of each pair ±k, DC first: (m, 3) float64.

    Raises ValueError where r_max reaches Nyquist, whose coefficients have no partner.
    """
    r = math.floor(r_max)
    if r >= box / 2:
        raise ValueError(f"a box of {box} holds no frequencies of {r_max} Fourier pixels")
    axis = torch.arange(-r, r + 1, dtype=torch.float64)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    half = (x > 0) | ((x == 0) & (y > 0)) | ((x == 0) & (y == 0) & (z >= 0))
    keep = half & (x * x + y * y + z * z <= r_max**2)
    points = torch.stack([x[keep], y[keep], z[keep]], dim=-1)
    return points[torch.argsort(points.square().sum(-1), stable=True)]


def values_at(spectrum: Tensor, points: Tensor) -> Tensor:
    """The coefficients at points (m, 3) of a centred spectrum (box, box, box): (m,)."""
    values: Tensor = spectrum[_places(points, spectrum.shape[0])]
    return values


def volume_of(points: Tensor, values: Tensor, box: int) -> Tensor:
    """The real volume (box, box, box) with these values (m,) at points (m, 3) of a `half_ball`, zero elsewhere."""
    spectrum = values.new_zeros(box, box, box)
    spectrum[_places(points, box)] = values
    spectrum[_places(-points, box)] = values.conj()
    return ifft3_centred(spectrum).real


def _places(points: Tensor, box: int) -> tuple[Tensor, Tensor, Tensor]:
    x, y, z = (points.to(torch.int64) + box // 2).unbind(-1)
    return z, y, x
