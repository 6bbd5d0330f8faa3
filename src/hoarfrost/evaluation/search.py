"""Exhaustive search for the rotation, hand and shift between two maps at low resolution."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hoarfrost.maths.ball import half_ball, values_at
from hoarfrost.maths.fourier import fft3_centred, fourier_resize, radius_grid
from hoarfrost.maths.rotations import rotation_grid, separate_maxima
from hoarfrost.maths.shells import nearest_shell, shell_means
from hoarfrost.nufft.sampler import SpectrumSampler

N_ROTATIONS = 4500
N_KEPT = 16
SHIFT_GRID_PER_BAND = 2.5
ROTATIONS_PER_CHUNK = 250


class Candidate(NamedTuple):
    """A rotation (3, 3) and shift (3,) in voxels, float64, a hand, and its score; see `hoarfrost.evaluation.align`."""

    rotation: Tensor
    shift: Tensor
    mirrored: bool
    score: float


def typical_diameter(volume: Tensor) -> float:
    """Diameter in voxels of the uniform ball with the radius of gyration of the volume's squared values."""
    n = volume.shape[0]
    weight = (volume - volume.median()).double().square()
    axis = torch.arange(n, dtype=torch.float64)
    total = weight.sum()
    centre = [float((weight.sum(dim=[d for d in range(3) if d != a]) * axis).sum() / total) for a in range(3)]
    offset = math.sqrt(sum((c - n // 2) ** 2 for c in centre))
    about_origin = float((weight * radius_grid(n, 3).square()).sum() / total)
    return max(2 * math.sqrt(5 / 3 * max(about_origin - offset**2, 0.0)), n / 8)


def search(volume: Tensor, reference: Tensor, r_max: float, scale: float) -> list[Candidate]:
    """The best distinct candidates of both hands by correlation up to r_max, best first; up to 2 · N_KEPT.

    `scale` is the volume's length over the reference's. Shells are whitened, then weighted by the square root of the
    reference's amplitude. Plain correlation would see the first shells only, phase correlation mostly shells of noise.
    """
    box = reference.shape[0]
    points = half_ball(box, r_max)[1:]
    shell = nearest_shell(points.norm(dim=-1))
    small = min(volume.shape[0], 2 * math.ceil(r_max * scale + 2))
    sampler = SpectrumSampler(fourier_resize(volume, small).unsqueeze(0), width=2, oversampling=3)
    target = values_at(fft3_centred(reference), points).to(torch.complex64)
    amplitude = shell_means(target.abs().square(), shell).sqrt().clamp(min=1e-30)
    target = target * amplitude[shell].rsqrt()

    rotations = rotation_grid(N_ROTATIONS)
    first = sampler(scale * points @ rotations[0].T)[:, 0]
    own = shell_means(first.abs().square(), shell).sqrt().clamp(min=1e-30)
    weight = amplitude[shell].sqrt() / own[shell]
    shifts = _ShiftSearch(points, r_max)
    scores = []
    places = []
    for chunk in torch.split(rotations, ROTATIONS_PER_CHUNK):
        rotated = torch.einsum("nij,kj->nki", chunk.float(), (points * scale).float()).reshape(-1, 3)
        values = sampler(rotated)[:, 0].reshape(len(chunk), -1) * weight.to(torch.float32)
        # Turned inside out, a real volume has the conjugate transform: the second hand costs no second sampling.
        best, place = shifts.best(torch.stack([target * values.conj(), target * values]))
        scores.append(best / values.abs().square().sum(-1).sqrt())
        places.append(place)
    found = []
    for hand, (score, place) in enumerate(zip(torch.cat(scores, 1), torch.cat(places, 1), strict=True)):
        for index in separate_maxima(score, rotations, N_KEPT):
            shift = shifts.in_box(int(place[index]), box)
            found.append(Candidate(rotations[index], shift, bool(hand), float(score[index])))
    return sorted(found, key=lambda c: -c.score)


class _ShiftSearch:
    """The highest value of Re Σ_k c(k) exp(2πi k·t / N) over a grid of shifts t that spans the box."""

    def __init__(self, points: Tensor, r_max: float) -> None:
        self._grid = 2 * math.ceil(SHIFT_GRID_PER_BAND * math.floor(r_max) / 2)
        x, y, z = points.to(torch.int64).unbind(-1)
        self._plane = x == 0
        self._index = self._flat(x, y, z)
        # The real FFT wants both halves of the x = 0 plane.
        self._opposite = self._flat(x, -y, -z)[self._plane]

    def _flat(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return ((z % self._grid) * self._grid + y % self._grid) * (self._grid // 2 + 1) + x

    def best(self, cross: Tensor) -> tuple[Tensor, Tensor]:
        """Highest value and its flat place on the shift grid, (...) each, of coefficients (..., m)."""
        g = self._grid
        spectrum = torch.zeros(*cross.shape[:-1], g * g * (g // 2 + 1), dtype=cross.dtype)
        spectrum[..., self._index] = cross
        spectrum[..., self._opposite] = cross[..., self._plane].conj()
        values = torch.fft.irfftn(spectrum.reshape(*cross.shape[:-1], g, g, g // 2 + 1), s=(g, g, g), dim=(-3, -2, -1))
        highest, place = values.flatten(-3).max(dim=-1)
        return highest, place

    def in_box(self, place: int, box: int) -> Tensor:
        """The shift (x, y, z) in voxels of a box of `box`, within ± box / 2, of a flat place."""
        g = self._grid
        steps = [place % g, place // g % g, place // g**2]
        return torch.tensor([(s - g if 2 * s >= g else s) * box / g for s in steps], dtype=torch.float64)
