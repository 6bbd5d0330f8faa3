"""The marginal likelihood of images over a quadrature of poses, streamed in tiles, with its exact gradient.

With y = Ĩ/σ and c = C/σ, both times √weight so that sums over the half disc need no further weight,

    log p_ij = −‖y_i‖² + 2 Re⟨z_ij , P_j V⟩ − ⟨c_i² , |P_j V|²⟩ + log w_j + const,     z_ij = c_i S_t* y_i

The products are real matrix products of (images · shifts) × (base orientations). The symmetries of the pixel lattice
stand in for seven orientations in eight: a half turn only conjugates the slice, so that the products of the real parts
and of the imaginary parts, added, give the score of an orientation, and subtracted that of the one half a turn away;
and those under a quarter turn and a flip are sums of the same few products (`plane_harmonics`).
The posterior γ_ij = p_ij w_j / Σ gives the two statistics that every method needs, summed over images and symmetries,

    numerator_j = Σ_i γ_ij z_ij      weight_j = Σ_i γ_ij c_i²      ∂(−Σ log p)/∂(P_j V) = −2 (numerator − weight P_j V)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hoarfrost.fourier import FourierDisc
from hoarfrost.geometry import plane_symmetries
from hoarfrost.model.plane_harmonics import HALF_OF_SYMMETRIES, PlaneHarmonics
from hoarfrost.model.quadrature import OrientationQuadrature, ShiftQuadrature
from hoarfrost.model.score_tile import LikelyPoses, ScoreTile
from hoarfrost.model.slice_bank import Scratch, SliceBank, StatisticSums

# Scores of all images of a tile are in memory at once, 64 MB of them.
SCORES_PER_TILE = 1 << 24
# More rows of images, symmetries and shifts make matrix products no faster.
ROWS_PER_TILE = 800


@dataclass(frozen=True)
class WhitenedImages:
    """Packed images divided by the noise: `data` y complex (b, K), `ctf` c real (b, K), `log_constant` (b,).

    `log_constant` is −‖y‖² − Σ weight · log(π σ²), the part of the log-likelihood that no pose changes; float64. DC is
    real, as that of any image: sums over poses pay no heed to an imaginary part there.
    """

    data: Tensor
    ctf: Tensor
    log_constant: Tensor

    def __len__(self) -> int:
        return int(self.data.shape[0])

    def __getitem__(self, index: Tensor | slice) -> WhitenedImages:
        """The chosen images."""
        return WhitenedImages(self.data[index], self.ctf[index], self.log_constant[index])

    def tempered(self, temperature: float) -> WhitenedImages:
        """The images as if their noise had so many times its variance, so that all poses are more alike."""
        if temperature == 1:
            return self
        root = math.sqrt(temperature)
        return WhitenedImages(self.data / root, self.ctf / root, self.log_constant)


def whiten(packed: Tensor, ctf: Tensor, noise_variance: Tensor, disc: FourierDisc) -> WhitenedImages:
    """Prepare packed images (b, K) with CTFs (b, K) and noise variance σ² per coefficient, (K,) or (b, K)."""
    weights = disc.weights.to(packed.device)
    scale = (weights / noise_variance).sqrt()
    data = packed * scale
    log_noise = (weights * (math.pi * noise_variance).log()).sum(-1)
    log_constant = -data.abs().square().sum(-1, dtype=torch.float64) - log_noise
    dtype = packed.real.dtype
    return WhitenedImages(data.to(packed.dtype), (ctf * scale).to(dtype), log_constant.to(torch.float64))


class PoseModel:
    """The quadratures and the permutations and phases that a band limit needs, ready on a device."""

    def __init__(
        self,
        disc: FourierDisc,
        orientations: OrientationQuadrature,
        shifts: ShiftQuadrature,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.disc = disc
        self.orientations = orientations
        self.shifts = shifts
        self.dtype = dtype
        complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
        self.base_log_weights = orientations.base_log_weights.to(device=device, dtype=dtype)
        self.shift_log_weights = shifts.log_weights.to(device=device, dtype=dtype)
        self.conjugate_phases = shifts.phases(disc.coordinates, disc.box).conj().to(device, complex_dtype)
        # Slices at g R_j are slices at R_j read at gᵀ k, so images are read at g k.
        permutations = [disc.permutation(g[:2, :2]) for g in plane_symmetries()]
        self.permutation = torch.stack([index for index, _ in permutations]).to(device)
        self.conjugate_sign = 1 - 2 * torch.stack([c for _, c in permutations]).to(device, dtype)
        self.harmonics = PlaneHarmonics(disc, dtype, device)
        self._scratches: list[Scratch] = []
        self._below: dict[float, PoseModel] = {}

    def below(self, r_max: float) -> PoseModel:
        """The same poses at a lower band limit."""
        if r_max not in self._below:
            disc, device = FourierDisc(self.disc.box, r_max), self.base_log_weights.device
            self._below[r_max] = PoseModel(disc, self.orientations, self.shifts, device=device, dtype=self.dtype)
        return self._below[r_max]

    def scratch(self, number: int = 0) -> Scratch:
        """Memory for one of the volumes that images are compared with at the same time."""
        while len(self._scratches) <= number:
            self._scratches.append(Scratch())
        return self._scratches[number]

    def even_and_odd(self, images: WhitenedImages) -> tuple[Tensor, Tensor]:
        """Coordinates of z = c S_t* y of each shift: of real parts (b · S, E), and of imaginary ones (b · S, 2 O)."""
        z = ((images.ctf * images.data)[:, None, :] * self.conjugate_phases).flatten(0, 1)
        return z.real @ self.harmonics.even.T, z.imag @ self.harmonics.odd.T

    def power(self, images: WhitenedImages) -> Tensor:
        """Coordinates of c², and a one where slices have their log weight: (b, E)."""
        power = images.ctf.square() @ self.harmonics.even.T
        power[:, self.harmonics.sizes[0] - 1] = 1
        return power

    def orient_data(self, images: WhitenedImages) -> tuple[Tensor, Tensor]:
        """Real and imaginary parts of z = c S_t* y under half of the symmetries and each shift: (b · 4 · S, K) each."""
        z = (images.ctf * images.data)[:, None, :] * self.conjugate_phases
        permutation, sign = self.permutation[HALF_OF_SYMMETRIES], self.conjugate_sign[HALF_OF_SYMMETRIES]
        z = z[:, :, permutation].transpose(1, 2)
        real, imaginary = z.real, z.imag * sign[:, None, :]
        return real.reshape(-1, self.disc.size), imaginary.reshape(-1, self.disc.size)

    def orient_power(self, images: WhitenedImages) -> Tensor:
        """c² under half of the symmetries: real (b · 4, K)."""
        return images.ctf.square()[:, self.permutation[HALF_OF_SYMMETRIES]].reshape(-1, self.disc.size)

    def node(self, turned: Tensor, symmetry: Tensor, base: Tensor) -> Tensor:
        """Index into `orientations.rotations()` of a base node under one of the half's symmetries, maybe turned."""
        full = torch.tensor(HALF_OF_SYMMETRIES, device=symmetry.device)[symmetry] + 2 * turned
        return full * self.orientations.n_base + base


@dataclass
class Posterior:
    """What the sum over poses leaves of a batch of b images.

    `log_evidence` (b,) float64, log p(Ĩ_i | V); `ess` (b,), effective number of poses 1/Σγ²; `numerator` complex
    (n_base, K) and `weight` real (n_base, K), the statistics summed over images (None unless asked for);
    `best_node` (b,), index into `OrientationQuadrature.rotations()`; `best_shift` (b,), index of the shift node;
    `best_probability` (b,), the posterior probability of that node.
    """

    log_evidence: Tensor
    ess: Tensor
    best_node: Tensor
    best_shift: Tensor
    best_probability: Tensor
    numerator: Tensor | None = None
    weight: Tensor | None = None


def marginalise(images: WhitenedImages, slices: Tensor, poses: PoseModel, *, statistics: bool = True) -> Posterior:
    """Sum the likelihood of each image over all poses, given slices (n_base, K) at the base orientations."""
    bank = SliceBank(slices, poses.base_log_weights, poses.harmonics, poses.scratch())
    sums = StatisticSums(bank)
    columns: list[tuple[Tensor, ...]] = []
    for part in tiles_of(images, len(slices), poses):
        tile = ScoreTile(images[part], poses, bank)
        columns.append((tile.log_evidence(), tile.ess(), *tile.best()))
        if statistics:
            tile.accumulate(sums)
    log_evidence, ess, node, shift, probability = (torch.cat(c) for c in zip(*columns, strict=True))
    if not statistics:
        return Posterior(log_evidence, ess, node, shift, probability)
    return Posterior(log_evidence, ess, node, shift, probability, *sums.result())


def likely_poses(images: WhitenedImages, slices: Tensor, poses: PoseModel, least_share: float) -> LikelyPoses:
    """All nodes that hold more than `least_share` of an image's posterior, and its best one in any case."""
    found = []
    bank = SliceBank(slices, poses.base_log_weights, poses.harmonics, poses.scratch())
    for part in tiles_of(images, len(slices), poses):
        likely = ScoreTile(images[part], poses, bank).likely(least_share)
        found.append(LikelyPoses(likely.image + part.start, likely.node, likely.shift, likely.probability))
    columns = ((p.image, p.node, p.shift, p.probability) for p in found)
    return LikelyPoses(*(torch.cat(column) for column in zip(*columns, strict=True)))


def tiles_of(images: WhitenedImages, n_base: int, poses: PoseModel) -> Iterator[slice]:
    """Parts of the images whose likelihoods over all poses are in memory at once."""
    rows_per_image = len(HALF_OF_SYMMETRIES) * len(poses.shifts.shifts_px)
    rows = min(ROWS_PER_TILE, SCORES_PER_TILE // (2 * n_base))
    step = min(len(images), max(1, rows // rows_per_image))
    for start in range(0, len(images), step):
        yield slice(start, start + step)


class _MeanNLL(torch.autograd.Function):
    """Mean negative log-likelihood of a batch as a function of the slices, with the hand-written gradient."""

    @staticmethod
    def forward(ctx: Any, slices: Tensor, images: WhitenedImages, poses: PoseModel) -> Tensor:
        posterior = marginalise(images, slices, poses)
        assert posterior.numerator is not None
        assert posterior.weight is not None
        ctx.save_for_backward(posterior.numerator - posterior.weight * slices)
        ctx.n_images = len(images)
        return -posterior.log_evidence.mean().to(slices.real.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (residual,) = ctx.saved_tensors
        return residual * (-2 / ctx.n_images * grad_outputs[0]), None, None


def mean_nll(slices: Tensor, images: WhitenedImages, poses: PoseModel) -> Tensor:
    """Mean over images of −log p(Ĩ | V), differentiable in the complex slices (n_base, K): a real scalar."""
    result: Tensor = _MeanNLL.apply(slices, images, poses)  # type: ignore[no-untyped-call]
    return result
