"""The marginal likelihood of images over a quadrature of poses, streamed in tiles, with its exact gradient.

With y = Ĩ/σ and c = C/σ, both times √weight so that sums over the half disc need no further weight,

    log p_ij = −‖y_i‖² + 2 Re⟨z_ij , P_j V⟩ − ⟨c_i² , |P_j V|²⟩ + log w_j + const,     z_ij = c_i S_t* y_i

The first product is one real matrix product of (images · symmetries · shifts) × (base orientations) over 2K numbers,
the second one of (images · symmetries) × (base orientations) over K. The symmetries of the pixel lattice are applied
to the images, as permutations, so slices are needed for the base orientations only. The posterior
γ_ij = p_ij w_j / Σ gives the two statistics that every method needs, as sums over images and the eight symmetries,

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
# exp() of anything lower is lost in a sum of 10⁷ terms, and denormal numbers (its square is none) make exp and GEMM 5 to 30 times slower.
LOWEST_EXPONENT = -40.0


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

    def orient_data(self, images: WhitenedImages) -> Tensor:
        """z = c S_t* y under each symmetry and shift: real (b · 8 · S, 2K), real and imaginary parts alternating."""
        z = (images.ctf * images.data)[:, None, :] * self.conjugate_phases
        z = z[:, :, self.permutation].transpose(1, 2)
        z = torch.complex(z.real, z.imag * self.conjugate_sign[:, None, :])
        return torch.view_as_real(z).reshape(-1, 2 * self.disc.size)

    def orient_power(self, images: WhitenedImages) -> Tensor:
        """c² under each symmetry: real (b · 8, K)."""
        return images.ctf.square()[:, self.permutation].reshape(-1, self.disc.size)


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


def marginalise(
    images: WhitenedImages, slices: Tensor, poses: PoseModel, *, statistics: bool = True
) -> Posterior:
    """Sum the likelihood of each image over all poses, given slices (n_base, K) at the base orientations."""
    n_base, size = slices.shape
    n_shifts = poses.shifts.shifts_px.shape[0]
    symmetries = poses.permutation.shape[0]
    flat_slices = torch.view_as_real(slices.contiguous()).reshape(n_base, 2 * size)
    power = slices.abs().square()
    numerator = torch.zeros_like(flat_slices) if statistics else None
    weight = torch.zeros_like(power) if statistics else None
    rows_per_image = symmetries * n_shifts
    step = max(1, SCORES_PER_TILE // (rows_per_image * n_base))
    # One buffer for all tiles: fresh memory for each would cost more than the arithmetic in page faults.
    buffer = flat_slices.new_empty(min(step, len(images)) * rows_per_image, n_base)
    columns: list[tuple[Tensor, ...]] = []
    for start in range(0, len(images), step):
        tile = images[start : start + step]
        b = len(tile)
        data, ctf_power = poses.orient_data(tile), poses.orient_power(tile)
        scores = torch.mm(2 * data, flat_slices.T, out=buffer[: b * rows_per_image])
        by_shift = scores.view(b * symmetries, n_shifts, n_base)
        by_shift += torch.addmm(poses.base_log_weights, ctf_power, power.T, alpha=-1)[:, None, :]
        by_shift += poses.shift_log_weights[:, None]
        by_image = scores.view(b, rows_per_image * n_base)
        best_score, best = by_image.max(dim=1)
        likelihoods = by_image.sub_(best_score[:, None]).clamp_(min=LOWEST_EXPONENT).exp_()
        total = likelihoods.sum(dim=1)
        sum_of_squares = torch.bmm(likelihoods[:, None, :], likelihoods[:, :, None]).reshape(b)
        columns.append(
            (
                tile.log_constant + best_score.to(torch.float64) + total.to(torch.float64).log(),
                total.square() / sum_of_squares,
                best // (n_shifts * n_base) * n_base + best % n_base,
                best // n_base % n_shifts,
                1 / total,
            )
        )
        if numerator is not None and weight is not None:
            # Normalise the few numbers of the images, not the many of the poses.
            data = data.div_(total.repeat_interleave(rows_per_image)[:, None])
            ctf_power = ctf_power.div_(total.repeat_interleave(symmetries)[:, None])
            share = (1 / total).repeat_interleave(rows_per_image)
            _accumulate(numerator, weight, scores, share, data, ctf_power)
    log_evidence, ess, node, shift, probability = (torch.cat(c) for c in zip(*columns, strict=True))
    if numerator is not None:
        numerator = torch.view_as_complex(numerator.view(n_base, size, 2))
    return Posterior(log_evidence, ess, node, shift, probability, numerator, weight)


def _accumulate(
    numerator: Tensor, weight: Tensor, likelihoods: Tensor, share: Tensor, data: Tensor, ctf_power: Tensor
) -> None:
    """Add a tile's Σ γ z and Σ γ c² to the sums, leaving out orientations that hold no posterior mass.

    `likelihoods` (rows, n_base) are not normalised; `data` and `ctf_power` already are, and `share` (rows,) would.
    """
    mass = share @ likelihoods
    kept = (mass > DROPPED_MASS / mass.shape[0]).nonzero().squeeze(1)
    dense = kept.shape[0] > mass.shape[0] // 2
    chosen = likelihoods if dense else likelihoods[:, kept]
    over_shifts = chosen.view(ctf_power.shape[0], -1, chosen.shape[1]).sum(dim=1)
    if dense:
        numerator.addmm_(chosen.T, data)
        weight.addmm_(over_shifts.T, ctf_power)
    else:
        numerator.index_add_(0, kept, chosen.T @ data)
        weight.index_add_(0, kept, over_shifts.T @ ctf_power)


class _MeanNLL(torch.autograd.Function):
    """Mean negative log-likelihood of a batch as a function of the slices, with the hand-written gradient."""

    @staticmethod
    def forward(ctx: Any, slices: Tensor, images: WhitenedImages, poses: PoseModel) -> Tensor:
        posterior = marginalise(images, slices, poses)
        assert posterior.numerator is not None and posterior.weight is not None
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
