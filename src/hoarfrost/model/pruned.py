"""The sum over all poses of the quadrature without scoring most of them at the full band limit.

All nodes are scored at a low band limit first. With s the score there (log p up to a constant of the image) and D the
part of the log-likelihood that the missing shells add, the posterior at the low limit is that of the same model given
less data, so the share of the final posterior that lies on a set of nodes is, on average, the share that the low limit
gives it: nodes far below the best hold next to nothing. Those within a margin of the best are scored again with more
shells, and the last of them at the full limit, where the log-sum-exp and the statistics are those of
`likelihood.marginalise` with the other nodes left out:

    S_0 = all nodes      S_{l+1} = {j ∈ S_l : s_l(j) ≥ max s_l − margin}      log p(Ĩ) ≈ log Σ_{j ∈ S_L} w_j p(Ĩ | j)

The nodes are the same at all limits. A coarser grid for the first sum was measured too: where images are clear, a
pose between its nodes is worth tens of nats more than the nodes about it, so that it needs margins of 20 to 60 nats
where the same nodes need 10 to 13, and more is lost in the second sum than was saved in the first (docs/speed.md).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.fourier import FourierDisc
from hoarfrost.model.likelihood import PoseModel, Posterior, WhitenedImages, tiles_of
from hoarfrost.model.plane_harmonics import HALF_OF_SYMMETRIES
from hoarfrost.model.pruned_kernel import RUN, best_of_pairs, near_best
from hoarfrost.model.score_blocks import ScoreBlocks
from hoarfrost.model.score_tile import DROPPED_MASS, SCORES_PER_BLOCK
from hoarfrost.model.slice_bank import SliceBank
from hoarfrost.model.workers import each


@dataclass(frozen=True)
class Pruning:
    """Band limits of the sums before the last, rising, and how far below the best a node may lie to be scored again.

    `bands` are in Fourier pixels, below that of the sum; `margin` is in nats, infinite to leave nothing out.
    """

    bands: tuple[float, ...]
    margin: float


@dataclass(frozen=True)
class Pruned:
    """The posterior, and `kept` (levels,): the mean number of an image's nodes that each sum but the first scored."""

    posterior: Posterior
    kept: Tensor


def adaptive_marginalise(
    images: WhitenedImages, slices: Tensor, poses: PoseModel, pruning: Pruning, *, statistics: bool = True
) -> Pruned:
    """Sum as `marginalise` does, over the nodes that `pruning` leaves. Slices are (n_base, K).

    Raises ValueError where the bands do not rise, or reach that of the slices.
    """
    bands = pruning.bands
    if not bands or list(bands) != sorted(set(bands)) or bands[0] < 1 or bands[-1] >= poses.disc.r_max:
        raise ValueError(f"bands must rise from 1 to less than {poses.disc.r_max}, found {bands}")
    sizes = [FourierDisc(poses.disc.box, r).size for r in bands]
    first = _FirstSum(slices[:, : sizes[0]].contiguous(), poses.below(bands[0]))
    later = [_Bank(slices[:, :size]) for size in [*sizes[1:], poses.disc.size]]
    sums = _Sums(slices, poses.dtype) if statistics else None
    columns: list[tuple[Tensor, ...]] = []
    kept = torch.zeros(len(later), dtype=torch.float64)
    for part in tiles_of(images, len(slices), poses):
        tile = _Tile(images[part], poses)
        nodes = first.survivors(tile.images, pruning.margin)
        for level, bank in enumerate(later):
            kept[level] += 2 * len(nodes.row)
            scores = bank.scores(tile, nodes)
            if level + 1 < len(later):
                best = scores.amax(dim=0)
                least = _maximum(best, tile.image_of(nodes.row), len(tile.images)) - pruning.margin
                nodes = nodes.among(best >= least[tile.image_of(nodes.row)])
        columns.append(_summarise(tile, nodes, scores, sums))
    log_evidence, ess, node, shift, probability = (torch.cat(c) for c in zip(*columns, strict=True))
    posterior = Posterior(log_evidence, ess, node, shift, probability)
    if sums is not None:
        posterior.numerator, posterior.weight = torch.complex(sums.real, sums.imaginary), sums.weight
    return Pruned(posterior, kept / len(images))


@dataclass(frozen=True)
class _Nodes:
    """Nodes that are left, in pairs half a turn apart: `row` (m,) of `_Tile`, ascending, and `base` (m,)."""

    row: Tensor
    base: Tensor

    def among(self, mask: Tensor) -> _Nodes:
        chosen = mask.nonzero().squeeze(1)
        return _Nodes(self.row[chosen], self.base[chosen])


class _Tile:
    """b images under each of four symmetries and S shifts, in this order by rows; half a turn more only conjugates.

    `real` and `imaginary` parts of z and `power` c² are (b · 4 · S, K), `log_weights` of the shifts (b · 4 · S,).
    """

    def __init__(self, images: WhitenedImages, poses: PoseModel) -> None:
        self.images, self.poses = images, poses
        self.n_shifts = len(poses.shift_log_weights)
        self.rows_per_image = len(HALF_OF_SYMMETRIES) * self.n_shifts
        self.real, self.imaginary = poses.orient_data(images)
        power = poses.orient_power(images).unsqueeze(1)
        self.power = power.expand(-1, self.n_shifts, -1).flatten(0, 1)
        self.log_weights = poses.shift_log_weights.repeat(len(images) * len(HALF_OF_SYMMETRIES))

    def image_of(self, row: Tensor) -> Tensor:
        """The image of each row."""
        return torch.div(row, self.rows_per_image, rounding_mode="floor")


class _FirstSum:
    """Scores of all nodes at the lowest band limit, from slices (n_base, K₀), and those near the best."""

    def __init__(self, slices: Tensor, poses: PoseModel) -> None:
        self._poses = poses
        self._bank = SliceBank(slices, poses.base_log_weights, poses.harmonics, poses.scratch())

    def survivors(self, images: WhitenedImages, margin: float) -> _Nodes:
        """Nodes within the margin of each image's best; those of the images' first coefficients are enough."""
        size = self._bank.size
        images = WhitenedImages(images.data[:, :size], images.ctf[:, :size], images.log_constant)
        blocks, device = ScoreBlocks(images, self._poses, self._bank), self._bank.joint.device
        n_base = len(self._bank.joint)
        width = math.ceil(SCORES_PER_BLOCK / (2 * len(images) * blocks.rows) / RUN) * RUN
        edges = [(first, min(first + width, n_base)) for first in range(0, n_base, width)]

        def score(of_block: tuple[int, int]) -> tuple[Tensor, Tensor]:
            products, bias = blocks.scores(*of_block)
            return products[0], best_of_pairs(products, bias, self._poses.shift_log_weights)

        scored = each(score, edges, device)
        least = torch.stack([highest.amax(dim=(1, 2)) for _, highest in scored]).amax(dim=0) - margin
        found = each(lambda block: near_best(*block, least), scored, device)
        row = torch.cat([row for row, _ in found])
        base = torch.cat([first + column for (first, _), (_, column) in zip(edges, found, strict=True)])
        order = torch.argsort(row, stable=True)
        return _Nodes(row[order], base[order])


class _Bank:
    """Slices of all base orientations up to one band limit, and the scores of chosen nodes there."""

    def __init__(self, slices: Tensor) -> None:
        self._size = slices.shape[1]
        power = slices.real.square() + slices.imag.square()
        self._even = torch.cat([2 * slices.real, -power], dim=1).T
        self._odd = (2 * slices.imag).T

    def scores(self, tile: _Tile, nodes: _Nodes) -> Tensor:
        """log p of nodes and of those half a turn away, up to a constant of the image: (2, m)."""
        size, rows = self._size, len(tile.real)
        first_of_row = _counted(nodes.row, rows)
        log_weights = tile.poses.base_log_weights[nodes.base] + tile.log_weights[nodes.row]
        with_power = torch.cat([tile.real[:, :size], tile.power[:, :size]], dim=1)
        even = _sampled(first_of_row, nodes.base, log_weights, with_power, self._even)
        odd = _sampled(
            first_of_row, nodes.base, torch.zeros_like(log_weights), tile.imaginary[:, :size].contiguous(), self._odd
        )
        return torch.stack([even + odd, even - odd])


def _counted(row: Tensor, rows: int) -> Tensor:
    """Where each row's entries begin, given the row of each entry, ascending: (rows + 1,)."""
    first = torch.zeros(rows + 1, dtype=torch.int64, device=row.device)
    torch.cumsum(torch.bincount(row, minlength=rows), dim=0, out=first[1:])
    return first


def _sampled(first_of_row: Tensor, column: Tensor, values: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """values + left @ right at the listed places only: (m,)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        size = (len(left), right.shape[1])
        places = torch.sparse_csr_tensor(first_of_row, column, values, size=size, check_invariants=False)
        result: Tensor = torch.sparse.sampled_addmm(places, left, right).values()
    return result


def _maximum(values: Tensor, image: Tensor, n_images: int) -> Tensor:
    """The largest value of each image, (b,)."""
    start = torch.full((n_images,), -torch.inf, dtype=values.dtype, device=values.device)
    return start.scatter_reduce_(0, image, values, "amax")


class _Sums:
    """Σ γ Re z, Σ γ Im z and Σ γ c², (n_base, K) each."""

    def __init__(self, slices: Tensor, dtype: torch.dtype) -> None:
        shape, device = slices.shape, slices.device
        self.real, self.imaginary, self.weight = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(3))

    def add(self, tile: _Tile, nodes: _Nodes, share: Tensor) -> None:
        """Add γ (2, m) of nodes and those half a turn away, summed by base node before they are written."""
        base, place = torch.unique(nodes.base, return_inverse=True)
        order = torch.argsort(place, stable=True)
        first, row = _counted(place[order], len(base)), nodes.row[order]
        both, difference = (share[0] + share[1])[order], (share[0] - share[1])[order]
        self.real.index_add_(0, base, _product(first, row, both, tile.real))
        self.imaginary.index_add_(0, base, _product(first, row, difference, tile.imaginary))
        self.weight.index_add_(0, base, _product(first, row, both, tile.power))


def _product(first_of_row: Tensor, column: Tensor, values: Tensor, right: Tensor) -> Tensor:
    """A sparse matrix, by rows, times a dense one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        size = (len(first_of_row) - 1, len(right))
        left = torch.sparse_csr_tensor(first_of_row, column, values, size=size, check_invariants=False)
    result: Tensor = left @ right
    return result


def _summarise(tile: _Tile, nodes: _Nodes, scores: Tensor, sums: _Sums | None) -> tuple[Tensor, ...]:
    """Log-evidence, ess, best node, its shift and its probability, (b,) each; adds to the statistics."""
    b, image, dtype = len(tile.images), tile.image_of(nodes.row), scores.dtype
    better = scores.amax(dim=0)
    peak = _maximum(better, image, b)
    likelihood = (scores - peak[image]).to(torch.float64).exp()
    count = torch.bincount(image, minlength=b)
    total = torch.segment_reduce(likelihood.sum(dim=0), "sum", lengths=count)
    squares = torch.segment_reduce(likelihood.square().sum(dim=0), "sum", lengths=count)
    log_evidence = tile.images.log_constant + peak.to(torch.float64) + total.log()
    at_peak = (better == peak[image]).nonzero().squeeze(1)
    best = torch.full((b,), len(better), device=image.device).scatter_reduce_(0, image[at_peak], at_peak, "amin")
    row = nodes.row[best]
    symmetry = torch.div(row, tile.n_shifts, rounding_mode="floor") % len(HALF_OF_SYMMETRIES)
    node = tile.poses.node(scores[:, best].argmax(dim=0), symmetry, nodes.base[best])
    if sums is not None:
        share = likelihood / total[image]
        heavy = share.amax(dim=0) * count[image] > DROPPED_MASS
        sums.add(tile, nodes.among(heavy), share[:, heavy].to(dtype))
    return log_evidence, (total.square() / squares).to(dtype), node, row % tile.n_shifts, (1 / total).to(dtype)
