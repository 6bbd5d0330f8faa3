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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hoarfrost.fourier import FourierDisc
from hoarfrost.geometry import plane_symmetries
from hoarfrost.model.quadrature import OrientationQuadrature, ShiftQuadrature

# Scores of all images of a tile are in memory at once, 16 MB of them; those of a block are read and written several
# times, so they should stay in cache. Measured at r_max 6 to 10: a million is as good as half, and a quarter is slower.
SCORES_PER_TILE = 1 << 22
SCORES_PER_BLOCK = 1 << 20
SMALLEST_WIDTH = 64
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
    sums = _Sums(*(torch.zeros(slices.shape, dtype=poses.dtype, device=slices.device) for _ in range(3)))
    columns: list[tuple[Tensor, ...]] = []
    for _, tile in _tiles(images, slices, poses):
        columns.append((tile.log_evidence(), tile.ess(), *tile.best()))
        if statistics:
            tile.accumulate(sums)
    log_evidence, ess, node, shift, probability = (torch.cat(c) for c in zip(*columns, strict=True))
    if not statistics:
        return Posterior(log_evidence, ess, node, shift, probability)
    numerator = torch.complex(sums.real, sums.imaginary)
    return Posterior(log_evidence, ess, node, shift, probability, numerator, sums.weight)


@dataclass(frozen=True)
class LikelyPoses:
    """Nodes of the quadrature that hold much of the posterior of b images, m in all, in no order.

    `image` (m,) numbers the images from 0; `node` and `shift` (m,) as in `Posterior`; `probability` (m,).
    """

    image: Tensor
    node: Tensor
    shift: Tensor
    probability: Tensor


def likely_poses(images: WhitenedImages, slices: Tensor, poses: PoseModel, least_share: float) -> LikelyPoses:
    """All nodes that hold more than `least_share` of an image's posterior, and its best one in any case."""
    found = []
    for start, tile in _tiles(images, slices, poses):
        part = tile.likely(least_share)
        found.append(LikelyPoses(part.image + start, part.node, part.shift, part.probability))
    columns = ((p.image, p.node, p.shift, p.probability) for p in found)
    return LikelyPoses(*(torch.cat(column) for column in zip(*columns, strict=True)))


def _tiles(images: WhitenedImages, slices: Tensor, poses: PoseModel) -> Iterator[tuple[int, _Tile]]:
    """The images' scores, so many images at a time, and the number of the first. A tile lasts until the next."""
    n_base = slices.shape[0]
    bank = _SliceBank(slices.real.contiguous(), slices.imag.contiguous())
    scores_per_image = 2 * len(HALF_OF_SYMMETRIES) * len(poses.shifts.shifts_px) * n_base
    step = min(len(images), max(1, SCORES_PER_TILE // scores_per_image))
    # One buffer for all tiles: fresh memory for each would cost more than the arithmetic in page faults.
    buffer = bank.real.new_empty(step * scores_per_image)
    for start in range(0, len(images), step):
        yield start, _Tile(images[start : start + step], poses, bank, buffer)


@dataclass(frozen=True)
class _Sums:
    """Σ γ Re z, Σ γ Im z and Σ γ c², (n_base, K) each."""

    real: Tensor
    imaginary: Tensor
    weight: Tensor


class _SliceBank:
    """Slices of all base orientations: real and imaginary parts and |P_j V|², (n_base, K) each."""

    def __init__(self, real: Tensor, imaginary: Tensor) -> None:
        self.real, self.imaginary = real, imaginary
        self.power = real.square() + imaginary.square()


class _Tile:
    """The scores of b images over all poses, block by block of base orientations, as exp(score − peak of the block).

    A block is small enough to stay in cache from the matrix product to the exponential. `_blocks` holds each block's
    first and last base orientation and its likelihoods (2, b, symmetries · shifts, width), plain and turned by 180°;
    `_peak`, `_sum` and `_squares`, (b, blocks), its highest score and the sums of its likelihoods and their squares.
    """

    def __init__(self, images: WhitenedImages, poses: PoseModel, bank: _SliceBank, buffer: Tensor) -> None:
        self._images, self._poses = images, poses
        self._b, self._n_shifts = len(images), len(poses.shifts.shifts_px)
        self._rows = len(HALF_OF_SYMMETRIES) * self._n_shifts
        self._data = poses.orient_data(images)
        self._doubled = [2 * part for part in self._data]
        self._ctf_power = poses.orient_power(images)
        n_base = bank.real.shape[0]
        n_blocks = math.ceil(2 * self._b * self._rows * n_base / SCORES_PER_BLOCK)
        width = max(SMALLEST_WIDTH, math.ceil(n_base / n_blocks))
        self._blocks: list[tuple[int, int, Tensor]] = []
        found = []
        for first in range(0, n_base, width):
            last = min(first + width, n_base)
            region = buffer[2 * self._b * self._rows * first : 2 * self._b * self._rows * last]
            scores = region.view(2, self._b, self._rows, last - first)
            self._score(scores, bank, first, last)
            found.append(_exponentiate(scores))
            self._blocks.append((first, last, scores))
        self._peak, self._sum, self._squares = (torch.stack(part, dim=1) for part in zip(*found, strict=True))
        self._highest = self._peak.amax(dim=1)
        self._factor = (self._peak - self._highest[:, None]).clamp_(min=LOWEST_EXPONENT).exp_()
        self._total = (self._factor * self._sum).sum(dim=1)

    def _score(self, scores: Tensor, bank: _SliceBank, first: int, last: int) -> None:
        """Fill a block with log p_ij up to a constant of the image."""
        products = scores.view(2, self._b * self._rows, last - first)
        torch.mm(self._doubled[0], bank.real[first:last].T, out=products[0])
        torch.mm(self._doubled[1], bank.imaginary[first:last].T, out=products[1])
        log_weights = self._poses.base_log_weights[first:last]
        bias = torch.addmm(log_weights, self._ctf_power, bank.power[first:last].T, alpha=-1)
        by_shift = scores[0].view(self._b, -1, self._n_shifts, last - first)
        by_shift += bias.view(self._b, -1, 1, last - first)
        if self._n_shifts > 1:
            by_shift += self._poses.shift_log_weights[:, None]
        _sum_and_difference(scores)

    def log_evidence(self) -> Tensor:
        """log p(Ĩ_i | V): (b,) float64."""
        return self._images.log_constant + self._highest.to(torch.float64) + self._total.to(torch.float64).log()

    def ess(self) -> Tensor:
        """1 / Σ γ², (b,)."""
        return self._total.square() / (self._factor.square() * self._squares).sum(dim=1)

    def best(self) -> tuple[Tensor, Tensor, Tensor]:
        """The most probable node, its shift and its probability, (b,) each."""
        of_block = self._peak.argmax(dim=1)
        node, shift = torch.empty_like(of_block), torch.empty_like(of_block)
        for block in sorted(set(of_block.tolist())):
            first, _, likelihoods = self._blocks[block]
            mine = (of_block == block).nonzero().squeeze(1)
            width = likelihoods.shape[3]
            place = likelihoods[:, mine].transpose(0, 1).reshape(len(mine), -1).argmax(dim=1)
            row = place // width
            node[mine] = self._poses.node(row // self._rows, row % self._rows // self._n_shifts, first + place % width)
            shift[mine] = row % self._n_shifts
        return node, shift, 1 / self._total

    def likely(self, least_share: float) -> LikelyPoses:
        """All nodes above `least_share` of the posterior, and each image's best."""
        node, shift, probability = self.best()
        found = [(torch.arange(self._b, device=node.device), node, shift, probability)]
        share = self._factor / self._total[:, None]
        for block, (first, _, likelihoods) in enumerate(self._blocks):
            live = (share[:, block] > least_share).nonzero().squeeze(1)
            if len(live) == 0:
                continue
            likelihoods = likelihoods[:, live]
            least = least_share / share[live, block]
            turned, of_live, row, column = (likelihoods > least[:, None, None]).nonzero().unbind(1)
            image = live[of_live]
            node = self._poses.node(turned, row // self._n_shifts, first + column)
            probability = likelihoods[turned, of_live, row, column] * share[image, block]
            found.append((image, node, row % self._n_shifts, probability))
        return LikelyPoses(*(torch.cat(column) for column in zip(*found, strict=True)))

    def accumulate(self, sums: _Sums) -> None:
        """Add the statistics, leaving out the blocks that hold none of an image's posterior mass. Call it last."""
        # Normalise the few numbers of the images, not the many of the poses.
        share = self._factor / self._total[:, None]
        live = ~(share * self._sum <= DROPPED_MASS / len(self._blocks))  # what is not a number counts as live
        for block, (first, last, likelihoods) in enumerate(self._blocks):
            of_live = live[:, block].nonzero().squeeze(1)
            if len(of_live) == 0:
                continue
            members = of_live if len(of_live) < self._b else slice(None)
            self._accumulate_block(sums, first, last, likelihoods[:, members], share[members, block], members)

    def _accumulate_block(
        self, sums: _Sums, first: int, last: int, likelihoods: Tensor, share: Tensor, members: Tensor | slice
    ) -> None:
        """Half a turn conjugates z, so imaginary parts take the difference of plain and turned."""
        size = sums.real.shape[1]
        _sum_and_difference(likelihoods)
        both, difference = likelihoods.reshape(2, -1, last - first)
        values = [(part.view(self._b, self._rows, size)[members] * share[:, None, None]) for part in self._data]
        ctf_power = self._ctf_power.view(self._b, -1, size)[members] * share[:, None, None]
        over_shifts = both if self._n_shifts == 1 else both.view(-1, self._n_shifts, last - first).sum(dim=1)
        sums.real[first:last].addmm_(both.T, values[0].view(-1, size))
        sums.imaginary[first:last].addmm_(difference.T, values[1].view(-1, size))
        sums.weight[first:last].addmm_(over_shifts.T, ctf_power.view(-1, size))


def _exponentiate(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn a block (2, b, rows, width) into exp(score − peak) in place; peak, sum and sum of squares, (b,) each."""
    by_image = scores.view(2, scores.shape[1], -1)
    peak = by_image.amax(dim=2).amax(dim=0)
    by_image.sub_(peak[:, None]).clamp_(min=LOWEST_EXPONENT).exp_()
    return peak, by_image.sum(dim=2).sum(dim=0), torch.linalg.vector_norm(by_image, dim=2).square().sum(dim=0)


def _sum_and_difference(pair: Tensor) -> None:
    """Turn the two halves of axis 0 of (2, …) into their sum and their difference, in place."""
    first, second = pair[0], pair[1]
    first.add_(second)
    torch.add(first, second, alpha=-2, out=second)


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
