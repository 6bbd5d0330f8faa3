"""The marginal likelihood of images over a quadrature of poses, streamed in tiles, with its exact gradient.

With y = Ĩ/σ and c = C/σ, both times √weight so that sums over the half disc need no further weight,

    log p_ij = −‖y_i‖² + 2 Re⟨z_ij , P_j V⟩ − ⟨c_i² , |P_j V|²⟩ + log w_j + const,     z_ij = c_i S_t* y_i

The products are real matrix products of (images · symmetries · shifts) × (base orientations). The symmetries of the
pixel lattice are applied to the images, as permutations, so slices are needed for the base orientations only. A half
turn in the plane only conjugates the slice: the products of the real parts and of the imaginary parts, added, give the
score of an orientation, and subtracted that of the one half a turn away, so both are computed for half of them only.
The posterior γ_ij = p_ij w_j / Σ gives the two statistics that every method needs, summed over images and symmetries,

    numerator_j = Σ_i γ_ij z_ij      weight_j = Σ_i γ_ij c_i²      ∂(−Σ log p)/∂(P_j V) = −2 (numerator − weight P_j V)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hoarfrost.fourier import FourierDisc
from hoarfrost.geometry import plane_symmetries
from hoarfrost.model.quadrature import OrientationQuadrature, ShiftQuadrature

# A tile of scores is read and written several times, so it should stay in cache: 4 M floats are 16 MB.
SCORES_PER_TILE = 1 << 22
# Poses outside the set that holds all but this share of the posterior change a gradient by no more than it.
DROPPED_MASS = 1e-6
# exp() of anything lower is lost in a sum of 10⁷ terms. It must not be let go on: denormal numbers make exp and matrix
# products 5 to 30 times slower, and even the square of this is none.
LOWEST_EXPONENT = -40.0
# Of `plane_symmetries`: quarter turns 0 and 1, plain and flipped. The others are these, turned by 180° (2 further on).
HALF_OF_SYMMETRIES = [0, 1, 4, 5]


@dataclass(frozen=True)
class WhitenedImages:
    """Packed images divided by the noise: `data` y complex (b, K), `ctf` c real (b, K), `log_constant` (b,).

    `log_constant` is −‖y‖² − Σ weight · log(π σ²), the part of the log-likelihood that no pose changes; float64.
    """

    data: Tensor
    ctf: Tensor
    log_constant: Tensor

    def __len__(self) -> int:
        return int(self.data.shape[0])

    def __getitem__(self, index: Tensor | slice) -> WhitenedImages:
        """The chosen images."""
        return WhitenedImages(self.data[index], self.ctf[index], self.log_constant[index])


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
    n_base, size = slices.shape
    n_shifts, n_half = poses.shifts.shifts_px.shape[0], len(HALF_OF_SYMMETRIES)
    real, imaginary = slices.real.contiguous(), slices.imag.contiguous()
    power = real.square() + imaginary.square()
    sums = _Sums(torch.zeros_like(real), torch.zeros_like(real), torch.zeros_like(real)) if statistics else None
    rows = n_half * n_shifts
    step = max(1, SCORES_PER_TILE // (2 * rows * n_base))
    # One buffer for all tiles: fresh memory for each would cost more than the arithmetic in page faults.
    buffer = real.new_empty(min(step, len(images)), 2, rows, n_base)
    columns: list[tuple[Tensor, ...]] = []
    for start in range(0, len(images), step):
        tile = images[start : start + step]
        b = len(tile)
        data = [part.view(b, rows, size) for part in poses.orient_data(tile)]
        ctf_power = poses.orient_power(tile)
        scores = buffer[:b]
        bias = torch.addmm(poses.base_log_weights, ctf_power, power.T, alpha=-1).view(b, n_half, 1, n_base)
        for image in range(b):
            torch.mm(2 * data[0][image], real.T, out=scores[image, 0])
            torch.mm(2 * data[1][image], imaginary.T, out=scores[image, 1])
        scores[:, 0].view(b, n_half, n_shifts, n_base).add_(bias).add_(poses.shift_log_weights[:, None])
        _sum_and_difference(scores)
        best_of_row = scores.amax(dim=3).view(b, 2 * rows)
        best_score, best_row = best_of_row.max(dim=1)
        row_scores = scores.view(b, 2 * rows, n_base)[torch.arange(b, device=best_row.device), best_row]
        by_image = scores.view(b, 2 * rows * n_base)
        likelihoods = by_image.sub_(best_score[:, None]).clamp_(min=LOWEST_EXPONENT).exp_()
        total = likelihoods.sum(dim=1)
        norm = torch.linalg.vector_norm(likelihoods, dim=1)
        columns.append(
            (
                tile.log_constant + best_score.to(torch.float64) + total.to(torch.float64).log(),
                (total / norm).square(),
                poses.node(best_row // rows, best_row % rows // n_shifts, row_scores.argmax(dim=1)),
                best_row % n_shifts,
                1 / total,
            )
        )
        if sums is not None:
            # Normalise the few numbers of the images, not the many of the poses.
            share = 1 / total
            data = [part.mul_(share[:, None, None]).reshape(b * rows, size) for part in data]
            ctf_power = ctf_power.view(b, -1).mul(share[:, None]).view(b * n_half, size)
            _accumulate(sums, scores, share, data, ctf_power)
    log_evidence, ess, node, shift, probability = (torch.cat(c) for c in zip(*columns, strict=True))
    if sums is None:
        return Posterior(log_evidence, ess, node, shift, probability)
    numerator = torch.complex(sums.real, sums.imaginary)
    return Posterior(log_evidence, ess, node, shift, probability, numerator, sums.weight)


@dataclass(frozen=True)
class _Sums:
    """Σ γ Re z, Σ γ Im z and Σ γ c², (n_base, K) each."""

    real: Tensor
    imaginary: Tensor
    weight: Tensor


def _sum_and_difference(pair: Tensor) -> None:
    """Turn the two halves of axis 1 of (b, 2, …) into their sum and their difference, in place."""
    first, second = pair[:, 0], pair[:, 1]
    first.add_(second)
    torch.add(first, second, alpha=-2, out=second)


def _accumulate(sums: _Sums, likelihoods: Tensor, share: Tensor, data: list[Tensor], ctf_power: Tensor) -> None:
    """Add a tile's statistics to the sums, leaving out orientations that hold no posterior mass.

    `likelihoods` (b, 2, rows, n_base), plain and turned by 180°, are overwritten; `data` and `ctf_power` are already
    divided by their sum, and `share` (b,) is one over it. Half a turn conjugates z, so imaginary parts take the
    difference.
    """
    _sum_and_difference(likelihoods)
    plain, turned = likelihoods[:, 0], likelihoods[:, 1]
    b, rows, n_base = plain.shape
    mass = torch.einsum("b,bn->n", share, plain.sum(dim=1))
    kept = (mass > DROPPED_MASS / n_base).nonzero().squeeze(1)
    # Scores that are not finite keep all orientations, and make the sums not finite in their turn.
    dense = kept.shape[0] > n_base // 2 or kept.shape[0] == 0
    both = plain if dense else plain[:, :, kept]
    difference = turned if dense else turned[:, :, kept]
    both, difference = both.reshape(b * rows, -1), difference.reshape(b * rows, -1)
    over_shifts = both.view(ctf_power.shape[0], -1, both.shape[1]).sum(dim=1)
    products = (
        (sums.real, both, data[0]),
        (sums.imaginary, difference, data[1]),
        (sums.weight, over_shifts, ctf_power),
    )
    for total, posterior, values in products:
        if dense:
            total.addmm_(posterior.T, values)
        else:
            total.index_add_(0, kept, posterior.T @ values)


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
