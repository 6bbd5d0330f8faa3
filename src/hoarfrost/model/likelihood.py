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
from hoarfrost.model.workers import each
from hoarfrost.model.quadrature import OrientationQuadrature, ShiftQuadrature

# Scores of all images of a tile are in memory at once, 16 MB of them; those of a block are read and written several
# times, so they should stay in cache. Measured at r_max 6 to 10: a million is as good as half, and a quarter is slower.
SCORES_PER_TILE = 1 << 24
SCORES_PER_BLOCK = 1 << 18
SMALLEST_WIDTH = 64
# Poses outside the set that holds all but this share of the posterior change a gradient by no more than it.
DROPPED_MASS = 1e-6
# exp() of anything lower is lost in a sum of 10⁷ terms. It must not be let go on: denormal numbers make exp and matrix
# products 5 to 30 times slower, and even the square of this is none.
LOWEST_EXPONENT = -40.0
# Sums of 10⁷ exponentials of this and of their squares are in the range of single precision.
HIGHEST_EXPONENT = 30.0
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
        self._buffer = torch.empty(0, device=device, dtype=dtype)
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

    def buffer(self, size: int) -> Tensor:
        """The same memory (size,) each time: fresh memory costs as much in page faults as the arithmetic in it."""
        if len(self._buffer) < size:
            self._buffer = self._buffer.new_empty(size)
        return self._buffer[:size]

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
    numerator = torch.empty_like(slices)
    weight = torch.empty_like(slices.real, memory_format=torch.contiguous_format)
    columns: list[tuple[Tensor, ...]] = []
    for start, tile in _tiles(images, slices, poses):
        columns.append((tile.log_evidence(), tile.ess(), *tile.best()))
        if statistics:
            tile.accumulate(numerator, weight, anew=start == 0)
    log_evidence, ess, node, shift, probability = (torch.cat(c) for c in zip(*columns, strict=True))
    if not statistics:
        return Posterior(log_evidence, ess, node, shift, probability)
    return Posterior(log_evidence, ess, node, shift, probability, numerator, weight)


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
    scores_per_image = 2 * len(HALF_OF_SYMMETRIES) * len(poses.shifts.shifts_px) * n_base
    step = min(len(images), max(1, SCORES_PER_TILE // scores_per_image))
    buffer = poses.buffer(step * scores_per_image)
    for start in range(0, len(images), step):
        yield start, _Tile(images[start : start + step], slices, poses, buffer)


class _Tile:
    """The likelihoods of b images over all poses, block by block of base orientations, as exp(score − reference).

    A block stays in the cache of the one core that works on it, from the matrix product to the exponential.
    `_blocks` holds each block's first and last base orientation and its likelihoods (2, b, symmetries · shifts,
    width), plain and turned by 180°; `_reference`, `_peak` and `_squares`, (b, blocks), what was taken from its scores,
    its highest score and the sum of the squares of its likelihoods; `_row_sums` (b, symmetries · shifts, blocks), the
    sums of its likelihoods, plain and turned.
    """

    def __init__(self, images: WhitenedImages, slices: Tensor, poses: PoseModel, buffer: Tensor) -> None:
        self._images, self._slices, self._poses = images, slices, poses
        self._b, self._n_shifts = len(images), len(poses.shifts.shifts_px)
        self._rows = len(HALF_OF_SYMMETRIES) * self._n_shifts
        self._data = poses.orient_data(images)
        self._doubled = [2 * part for part in self._data]
        self._ctf_power = poses.orient_power(images)
        n_base, per_base = slices.shape[0], 2 * self._b * self._rows
        self._sampled = self._guess_peaks(buffer)
        width = max(SMALLEST_WIDTH, math.ceil(n_base / math.ceil(per_base * n_base / SCORES_PER_BLOCK)))
        self._blocks: list[tuple[int, int, Tensor]] = []
        for first in range(0, n_base, width):
            last = min(first + width, n_base)
            region = buffer[per_base * first : per_base * last]
            self._blocks.append((first, last, region.view(2, self._b, self._rows, last - first)))
        found = each(self._fill, self._blocks, slices.device)
        self._reference, self._peak, self._row_sums, self._squares = (
            torch.stack(part, dim=-1) for part in zip(*found, strict=True)
        )
        self._highest = self._reference.amax(dim=1)
        self._factor = _exp(self._reference - self._highest[:, None])
        self._total = (self._factor * self._row_sums.sum(dim=1)).sum(dim=1)

    def _guess_peaks(self, buffer: Tensor) -> Tensor:
        """The highest scores (b,) at a few orientations, taken from all scores so that exponentials are in range."""
        n_base = self._slices.shape[0]
        sample = torch.arange(0, n_base, math.ceil(n_base / SMALLEST_WIDTH), device=self._slices.device)
        scores = buffer[: 2 * self._b * self._rows * len(sample)].view(2, self._b, self._rows, len(sample))
        nothing = self._ctf_power.new_zeros(self._b)
        self._score(scores, self._slices[sample], self._poses.base_log_weights[sample], nothing)
        return scores.amax(dim=3).amax(dim=(0, 2))

    def _fill(self, block: tuple[int, int, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fill a block with its likelihoods; reference and peak (b,), row sums (b, rows) and sum of squares (b,)."""
        first, last, scores = block
        self._score(scores, self._slices[first:last], self._poses.base_log_weights[first:last], self._sampled)
        peak = scores.amax(dim=3).amax(dim=(0, 2))
        rise = torch.where(peak > HIGHEST_EXPONENT, peak, 0)
        if bool((rise > 0).any()):
            scores.sub_(rise[:, None, None])
        scores.clamp_(min=LOWEST_EXPONENT).exp_()
        squares = torch.linalg.vector_norm(scores.view(2, self._b, -1), dim=2).square().sum(dim=0)
        return self._sampled + rise, self._sampled + peak, scores.sum(dim=3).sum(dim=0), squares

    def _score(self, scores: Tensor, slices: Tensor, log_weights: Tensor, reference: Tensor) -> None:
        """Fill a block with log p_ij, up to a constant of the image, less the reference (b,)."""
        real, imaginary = slices.real.contiguous(), slices.imag.contiguous()
        products = scores.view(2, self._b * self._rows, -1)
        start = reference.repeat_interleave(len(HALF_OF_SYMMETRIES))[:, None]
        power = torch.addcmul(real.square(), imaginary, imaginary)
        if self._n_shifts == 1:
            torch.sub(log_weights, start, out=products[0]).addmm_(self._ctf_power, power.T, alpha=-1)
        else:
            bias = (log_weights - start).addmm_(self._ctf_power, power.T, alpha=-1)
            by_shift = products[0].view(-1, self._n_shifts, products.shape[2])
            torch.add(bias[:, None], self._poses.shift_log_weights[:, None], out=by_shift)
        products[0].addmm_(self._doubled[0], real.T)
        torch.mm(self._doubled[1], imaginary.T, out=products[1])
        products[0].add_(products[1])
        torch.add(products[0], products[1], alpha=-2, out=products[1])

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
        return node, shift, (self._peak.amax(dim=1) - self._highest).exp() / self._total

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

    def accumulate(self, numerator: Tensor, weight: Tensor, *, anew: bool) -> None:
        """Add the statistics, or write them `anew`, without the rows of blocks that hold none of an image's mass."""
        share = self._factor / self._total[:, None]
        mass = (share[:, None] * self._row_sums).flatten(0, 1)
        live = ~(mass <= DROPPED_MASS / (self._rows * len(self._blocks)))  # what is not a number counts as live
        # Normalise the numbers of the images, fewer than those of the poses; for most blocks they are the same.
        usual = self._factors(_exp(self._sampled - self._highest) / self._total, None)
        risen = (self._reference > self._sampled[:, None]).any(dim=0).tolist()

        def add(block: int) -> None:
            first, last, likelihoods = self._blocks[block]
            likelihoods = likelihoods.view(2, -1, last - first)
            rows = live[:, block].nonzero().squeeze(1)
            if 2 * len(rows) > len(live):
                factors = self._factors(share[:, block], None) if risen[block] else usual
            else:
                factors, likelihoods = self._factors(share[:, block], rows), likelihoods[:, rows]
            real, imaginary, power = self._products(likelihoods, factors)
            if anew:
                torch.complex(real, imaginary, out=numerator[first:last])
                weight[first:last] = power
            else:
                numerator[first:last] += torch.complex(real, imaginary)
                weight[first:last] += power

        each(add, range(len(self._blocks)), numerator.device)

    def _factors(self, share: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Re z and c² side by side, and Im z, times each image's share (b,), for some rows or all.

        For all rows of several shifts c² comes apart, (b · symmetries, K), so that the shifts can be summed first.
        """
        real, imaginary = self._data
        if rows is None and self._n_shifts > 1:
            of_row = share.repeat_interleave(self._rows)[:, None]
            of_power = share.repeat_interleave(len(HALF_OF_SYMMETRIES))[:, None]
            return real * of_row, imaginary * of_row, self._ctf_power * of_power
        if rows is None:
            rows = torch.arange(len(real), device=real.device)
        of_row = share[rows // self._rows, None]
        left = torch.cat([real[rows], self._ctf_power[rows // self._n_shifts]], dim=1)
        return left * of_row, imaginary[rows] * of_row, None

    def _products(
        self, likelihoods: Tensor, factors: tuple[Tensor, Tensor, Tensor | None]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Σ γ Re z, Σ γ Im z and Σ γ c² (width, K). Half a turn conjugates z, so Im z takes plain less turned."""
        left, imaginary, power = factors
        both, difference = likelihoods[0] + likelihoods[1], likelihoods[0] - likelihoods[1]
        real = both.T @ left
        if power is None:
            real, weight = real.tensor_split(2, dim=1)
        else:
            weight = both.view(len(power), -1, both.shape[1]).sum(dim=1).T @ power
        return real, difference.T @ imaginary, weight


def _exp(exponent: Tensor) -> Tensor:
    """exp() of numbers up to zero, and zero instead of denormal numbers."""
    return torch.where(exponent > 2 * LOWEST_EXPONENT, exponent.exp(), 0)


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
