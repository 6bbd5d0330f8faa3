"""Bring a map onto a reference: the best of all rotations, both hands and all shifts.

Convention, with x = (x, y, z) in voxels of the reference from its origin, and V′ the volume or, where `mirrored`,
the volume turned inside out, V(−x):

    aligned(x) = V′( R (x − t) )                  R takes the reference's frame to the volume's; t moves by +t
    âligned(k) = exp(−2πi k·t / N) V̂′( R k )

A search over SO(3) at low resolution finds the best shift of every rotation by FFT (`search`). The best candidates of
each hand then climb by damped Gauss–Newton steps through ever wider bands. The score is the mutual information of two
maps with Gaussian coefficients, −Σ_s n_s log(1 − FSC(s)²). It does not depend on the maps' spectra, and shells without
agreement weigh nothing.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.evaluation.search import Candidate, search, typical_diameter
from hoarfrost.maths.ball import half_ball, values_at, volume_of
from hoarfrost.maths.fourier import centred_window, fft3_centred, fourier_resize, soft_sphere
from hoarfrost.maths.rotations import rotations_from_vectors
from hoarfrost.maths.shells import nearest_shell, shell_means
from hoarfrost.nufft.sampler import SpectrumSampler

LARGEST_SEARCH_BAND = 8.0
LARGEST_BAND = 32.0
BAND_GROWTH = 1.6
KEPT_AT_FIRST = 9


@dataclass(frozen=True)
class Alignment:
    """How a volume lies on a reference; see this module for the convention.

    `rotation` (3, 3) and `shift_voxels` (3,) as (x, y, z) are float64; `aligned` is the volume in the reference's
    frame, box and pixel size, float32; `correlation` is Pearson's, of the two maps' voxels. `score` is what the search
    maximised, for comparison with another alignment to the same reference.
    """

    rotation: Tensor
    shift_voxels: Tensor
    mirrored: bool
    aligned: Tensor
    correlation: float
    score: float


def align(
    volume: Tensor,
    reference: Tensor,
    *,
    pixel_size_A: float = 1.0,
    reference_pixel_size_A: float | None = None,
    mirrored: bool | None = None,
) -> Alignment:
    """Align a real cubic volume to a reference; boxes and pixel sizes may differ, lengths in Å must be right.

    `reference_pixel_size_A` is taken equal to `pixel_size_A` unless given; `mirrored` keeps to one hand. Raises
    ValueError where a volume is not cubic, is smaller than 8 voxels or is the same everywhere.
    """
    voxel_A = pixel_size_A if reference_pixel_size_A is None else reference_pixel_size_A
    for name, array in (("volume", volume), ("reference", reference)):
        if array.ndim != 3 or len(set(array.shape)) != 1 or array.shape[0] < 8:
            raise ValueError(f"the {name} must be cubic, of 8 voxels or more, not {tuple(array.shape)}")
        if not array.isfinite().all() or array.max() == array.min():
            raise ValueError(f"the {name} must be finite and not constant")
    volume, reference = volume.to("cpu", torch.float32), reference.to("cpu", torch.float32)
    n = volume.shape[0]
    box = reference.shape[0]
    # The grid is as long as the longer map, or its outside would be folded into the inside.
    long_box = max(box, 2 * math.ceil(n * pixel_size_A / voxel_A / 2 - 1e-6))
    scale = n * pixel_size_A / (long_box * voxel_A)
    limit = min(long_box / 2 - 1, (n / 2 - 1) / scale)
    target = centred_window(reference, long_box)
    # A rotation takes the corners out of the box, so they do not count.
    masked = [(v - v.mean()) * soft_sphere(v.shape[0], 0.9 * v.shape[0], 0.05 * v.shape[0]) for v in (volume, target)]
    # Where a molecule fills little of the box, its features lie at more Fourier pixels.
    top = min(limit, LARGEST_BAND)
    band = min(limit, max(6.0, min(5 * long_box / typical_diameter(target), LARGEST_SEARCH_BAND, 0.75 * top)))
    moving, fixed = (_cropped(v, top * s) for v, s in zip(masked, (scale, 1.0), strict=True))
    with one_thread():
        best = _best_candidate(moving, fixed, band, top, scale, mirrored)
    shift = best.shift * (long_box / fixed.shape[0])
    aligned = resample(volume, best.rotation, shift, mirrored=best.mirrored, box=long_box, scale=scale)
    aligned = centred_window(aligned, box)
    pair = torch.stack([aligned.flatten(), reference.flatten()]).to(torch.float64)
    return Alignment(best.rotation, shift, best.mirrored, aligned, float(torch.corrcoef(pair)[0, 1]), best.score)


def _best_candidate(
    moving: Tensor, fixed: Tensor, band: float, top: float, scale: float, mirrored: bool | None
) -> Candidate:
    """The best of all rotations, shifts and hands, or those of one hand, from the first band to the top one."""
    candidates = [c for c in search(moving, fixed, band, scale) if mirrored in (None, c.mirrored)]
    kept = KEPT_AT_FIRST
    while True:
        last = band == top
        objective = _Objective(moving, fixed, band, scale)
        steps, tolerance = (20, 1e-8) if last else (6, 1e-3)
        climbed = [objective.climb(c, max_steps=steps, tolerance=tolerance) for c in candidates]
        candidates = _distinct(sorted(climbed, key=lambda c: -c.score))[:kept]
        if last:
            break
        band, kept = min(top, band * BAND_GROWTH), max(2, kept // 3)
    return candidates[0]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: for thousands of small operations more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _cropped(volume: Tensor, r_max: float) -> Tensor:
    """The volume on the coarsest grid that holds frequencies up to r_max."""
    return fourier_resize(volume, min(volume.shape[0], 2 * math.ceil(r_max + 2)))


def resample(
    volume: Tensor, rotation: Tensor, shift_voxels: Tensor, *, mirrored: bool, box: int, scale: float = 1.0
) -> Tensor:
    """The volume (n, n, n) rotated, shifted and mirrored as in this module: float32 (box, box, box).

    `scale` is the volume's length over the result's. Frequencies up to Nyquist, periodic in the result's box.
    """
    points = half_ball(box, box / 2 - 1e-3)
    sampler = SpectrumSampler(volume.to(torch.float32).unsqueeze(0), width=6)
    sign = -1.0 if mirrored else 1.0
    values = sampler(sign * scale * points @ rotation.T)[:, 0]
    values = values * torch.polar(torch.ones(len(points)), (-2 * math.pi / box * (points @ shift_voxels)).float())
    # Voxel values, not their sums, are what a change of voxel size leaves alone.
    return volume_of(points, values, box) * (box * scale / volume.shape[0]) ** 3


class _Objective:
    """Agreement of a volume, moved, with a reference over a band of frequencies, and its ascent."""

    def __init__(self, volume: Tensor, reference: Tensor, band: float, scale: float) -> None:
        self._box = reference.shape[0]
        self._scale = scale
        self._points = half_ball(self._box, band)
        self._shell = nearest_shell(self._points.norm(dim=-1))
        cropped = _cropped(volume, band * scale)
        small = cropped.shape[0]
        axis = (torch.arange(small) - small // 2).to(torch.float32) * (-2 * math.pi / small)
        # V̂ and ∂V̂/∂p, the transforms of V and −2πi x V / n: the i is put back by `_model`.
        volumes = torch.stack([cropped, cropped * axis, cropped * axis[:, None], cropped * axis[:, None, None]])
        self._sampler = SpectrumSampler(volumes)
        target = values_at(fft3_centred(reference), self._points).to(torch.complex128)
        self._target = target / self._amplitude(target)

    def _amplitude(self, values: Tensor) -> Tensor:
        """The root mean square of the shell that each value is in: (m,)."""
        return shell_means(values.abs().square(), self._shell).clamp(min=1e-30).sqrt()[self._shell]

    def _model(self, candidate: Candidate) -> tuple[Tensor, Tensor]:
        """Whitened coefficients of the moved volume, (m,), and their derivative by turn and shift, (m, 6)."""
        k = self._points
        frame = candidate.rotation * ((-1.0 if candidate.mirrored else 1.0) * self._scale)
        sampled = self._sampler(k @ frame.T).to(torch.complex128)
        phase = torch.polar(torch.ones(len(k), dtype=torch.float64), -2 * math.pi / self._box * (k @ candidate.shift))
        values = sampled[:, 0] * phase
        gradient = 1j * sampled[:, 1:] @ frame.to(torch.complex128) * phase.unsqueeze(-1)
        turn = torch.linalg.cross(k.to(torch.complex128), gradient)
        shift = -2j * math.pi / self._box * k * values.unsqueeze(-1)
        norm = self._amplitude(values)
        return values / norm, torch.cat([turn, shift], dim=-1) / norm.unsqueeze(-1)

    def _fsc(self, values: Tensor) -> Tensor:
        return shell_means((self._target.conj() * values).real, self._shell)

    def _score(self, values: Tensor) -> float:
        fsc = self._fsc(values).clamp(0.0, 0.999)
        fsc[0] = 0.0
        return float(-(torch.bincount(self._shell) * torch.log1p(-fsc.square())).sum())

    def climb(self, start: Candidate, *, max_steps: int, tolerance: float) -> Candidate:
        """The local maximum of the score near `start`: Levenberg–Marquardt with weights from the current FSC."""
        here = start
        values, jacobian = self._model(here)
        score = self._score(values)
        damping = 1e-3
        for _ in range(max_steps):
            fsc = self._fsc(values).clamp(0.02, 0.95)
            weight = (fsc / (1 - fsc.square()))[self._shell]
            step = _gauss_newton_step(self._target, values, jacobian, weight, damping)
            turn = rotations_from_vectors(step[None, :3])[0]
            there = Candidate(here.rotation @ turn, here.shift + step[3:], here.mirrored, 0.0)
            new_values, new_jacobian = self._model(there)
            new_score = self._score(new_values)
            if new_score <= score:
                damping *= 8
                if damping > 1e2:
                    break
                continue
            gain = new_score - score
            here, values, jacobian, score = there, new_values, new_jacobian, new_score
            damping /= 4
            if gain < tolerance * abs(score):
                break
        return Candidate(here.rotation, here.shift, here.mirrored, score)


def _gauss_newton_step(target: Tensor, values: Tensor, jacobian: Tensor, weight: Tensor, damping: float) -> Tensor:
    """Step (6,) that lessens Σ w |target − α values|², the amplitude α being free."""
    power = (weight * values.abs().square()).sum()
    alpha = (weight * (values.conj() * target).real).sum() / power
    along = (weight.unsqueeze(-1) * (values.conj().unsqueeze(-1) * jacobian).real).sum(0) / power
    tangent = (jacobian - values.unsqueeze(-1) * along) * alpha.clamp(min=0.05)
    weighted = weight.unsqueeze(-1) * tangent.conj()
    normal = (weighted.T @ tangent).real
    slope = (weighted.T @ (target - alpha * values)).real
    # The last term keeps maps without features, for which a turn changes nothing, from a division by zero.
    diagonal = normal.diagonal() * damping + 1e-9 * normal.diagonal().sum() + 1e-30
    step: Tensor = torch.linalg.solve(normal + torch.diag(diagonal), slope)
    return step


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """Candidates, best first, without those that climbed to the place of a better one."""
    kept: list[Candidate] = []
    for one in candidates:
        twins = (o for o in kept if o.mirrored == one.mirrored and float((o.rotation * one.rotation).sum()) > 2.99)
        if next(twins, None) is None:
            kept.append(one)
    return kept
