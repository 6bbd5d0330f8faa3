"""The sum over all poses of the quadrature without scoring most of them at the full band limit.

All nodes are scored at a low band limit first. With s the score there (log p up to a constant of the image) and D the
part of the log-likelihood that the missing shells add, the posterior at the low limit is that of the same model given
less data, so the share of the final posterior that lies on a set of nodes is, on average, the share that the low limit
gives it: nodes far below the best hold next to nothing. Those within a margin of the best are scored again with more
shells, and the last of them at the full limit, where the log-sum-exp and the statistics are those of
`likelihood.marginalise` with the other nodes left out:

    S_0 = all nodes      S_{l+1} = {j ∈ S_l : s_l(j) ≥ max s_l − margin}      log p(Ĩ) ≈ log Σ_{j ∈ S_L} w_j p(Ĩ | j)

The nodes are the same at all limits. A coarser grid for the first sum was measured too: a node between the coarse ones
is worth tens of nats more than its neighbours where images are clear, so that margins of 20 to 60 nats were needed
where 10 do without it, and more was lost in the second sum than had been saved in the first (docs/adaptive.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.fourier import FourierDisc
from hoarfrost.model.likelihood import (
    DROPPED_MASS,
    HALF_OF_SYMMETRIES,
    PoseModel,
    Posterior,
    WhitenedImages,
)

# Low-band scores of a tile of images are in memory at once; fewer leave the matrix products short of rows.
SCORES_PER_TILE = 1 << 21
# The maximum over so many nodes at a time is compared with the best: comparing each costs more than its score.
NODES_PER_BLOCK = 16


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
    first = _FirstSum(slices[:, : sizes[0]], poses)
    later = [_Bank(slices[:, :size]) for size in [*sizes[1:], poses.disc.size]]
    sums = _Sums(slices, poses.dtype) if statistics else None
    columns: list[tuple[Tensor, ...]] = []
    kept = torch.zeros(len(later), dtype=torch.float64)
    for tile in _tiles(images, poses, first.n_padded):
        nodes = first.survivors(tile, pruning.margin)
        for level, bank in enumerate(later):
            kept[level] += len(nodes.row)
            scores = bank.scores(tile, nodes)
            if level + 1 < len(later):
                nodes = nodes.among(_near_best(scores, tile.image_of(nodes.row), len(tile.images), pruning.margin))
        columns.append(_summarise(tile, nodes, scores, sums))
    log_evidence, ess, node, shift, probability = (torch.cat(c) for c in zip(*columns, strict=True))
    posterior = Posterior(log_evidence, ess, node, shift, probability)
    if sums is not None:
        posterior.numerator, posterior.weight = torch.view_as_complex(sums.numerator), sums.weight
    return Pruned(posterior, kept / len(images))


@dataclass(frozen=True)
class _Nodes:
    """Nodes that are left, by row: `row` (m,) of `_Tile.data`, ascending, and `base` (m,)."""

    row: Tensor
    base: Tensor

    def among(self, mask: Tensor) -> _Nodes:
        chosen = mask.nonzero().squeeze(1)
        return _Nodes(self.row[chosen], self.base[chosen])


class _Tile:
    """b images under every symmetry and shift, rows in the order image, half turn, symmetry of the half, shift.

    `data` z complex (b, 2, 4, S, K) and `power` c² real (b, 2, 4, K), as in `likelihood`.
    """

    def __init__(self, images: WhitenedImages, poses: PoseModel) -> None:
        self.images, self.poses = images, poses
        self.n_shifts = len(poses.shift_log_weights)
        self.rows_per_image = 2 * len(HALF_OF_SYMMETRIES) * self.n_shifts
        half = HALF_OF_SYMMETRIES
        z = (images.ctf * images.data)[:, None, :] * poses.conjugate_phases
        turned = z[:, :, poses.permutation[half]].transpose(1, 2)
        self.data = turned.new_empty(len(images), 2, *turned.shape[1:])
        plain = self.data[:, 0]
        plain.copy_(turned)
        plain.imag.mul_(poses.conjugate_sign[half][:, None, :])
        # Half a turn in the plane conjugates.
        torch.conj_physical(plain, out=self.data[:, 1])
        power = images.ctf.square()[:, poses.permutation[half]]
        self.power = power[:, None].expand(-1, 2, -1, -1).contiguous()

    def image_of(self, row: Tensor) -> Tensor:
        """The image of each row."""
        return torch.div(row, self.rows_per_image, rounding_mode="floor")


def _tiles(images: WhitenedImages, poses: PoseModel, n_base: int) -> Iterator[_Tile]:
    scores_per_image = 2 * len(HALF_OF_SYMMETRIES) * len(poses.shift_log_weights) * n_base
    step = max(1, SCORES_PER_TILE // scores_per_image)
    for start in range(0, len(images), step):
        yield _Tile(images[start : start + step], poses)


class _FirstSum:
    """Scores of all nodes at the lowest band limit, from slices (n_base, K₀)."""

    def __init__(self, slices: Tensor, poses: PoseModel) -> None:
        n_base, size = slices.shape
        self.n_padded = -(-n_base // NODES_PER_BLOCK) * NODES_PER_BLOCK
        padded = slices.new_zeros(self.n_padded, size)
        padded[:n_base] = slices
        self._real, self._imaginary = 2 * padded.real, 2 * padded.imag
        self._power = padded.real.square() + padded.imag.square()
        self._log_weights = torch.full((self.n_padded,), -torch.inf, dtype=poses.dtype, device=slices.device)
        self._log_weights[:n_base] = poses.base_log_weights
        self._buffer = self._power.new_empty(0)

    def survivors(self, tile: _Tile, margin: float) -> _Nodes:
        """Nodes within the margin of each image's best."""
        scores = self._scores(tile)
        b = len(tile.images)
        # Block n of a row is made of every (n_padded / 16)th node from n on, so that the maximum runs along memory.
        blocks = scores.view(2, b, -1, NODES_PER_BLOCK, self.n_padded // NODES_PER_BLOCK)
        highest = blocks.amax(dim=3).transpose(0, 1).reshape(b, tile.rows_per_image, -1)
        least = highest.amax(dim=(1, 2)) - margin
        image, row, block = (highest >= least[:, None, None]).nonzero().unbind(1)
        # −∞ − ∞ would let the padding in.
        half, place = torch.div(row, blocks.shape[2], rounding_mode="floor"), row % blocks.shape[2]
        members = blocks[half, image, place, :, block]
        of_block, member = ((members >= least[image, None]) & members.isfinite()).nonzero().unbind(1)
        rows = image * tile.rows_per_image + row
        return _Nodes(rows[of_block], member * blocks.shape[4] + block[of_block])

    def _scores(self, tile: _Tile) -> Tensor:
        """log p up to a constant of the image, (2, b, 4 · S, n_padded), plain and turned by 180°."""
        b, s, size = len(tile.images), tile.n_shifts, self._power.shape[1]
        data = tile.data[:, 0, :, :, :size].reshape(-1, size)
        shape = (2, b, data.shape[0] // b, self.n_padded)
        n_scores = 2 * data.shape[0] * self.n_padded
        if len(self._buffer) < n_scores:
            # One buffer for all tiles: fresh memory for each would cost more than the arithmetic in page faults.
            self._buffer = self._power.new_empty(n_scores)
        scores = self._buffer[:n_scores].view(2, data.shape[0], self.n_padded)
        torch.mm(data.real.contiguous(), self._real.T, out=scores[0])
        torch.mm(data.imag.contiguous(), self._imaginary.T, out=scores[1])
        power = tile.power[:, 0, :, :size].reshape(-1, size)
        bias = torch.addmm(self._log_weights, power, self._power.T, alpha=-1).view(b, -1, 1, self.n_padded)
        by_shift = scores[0].view(b, -1, s, self.n_padded)
        by_shift += bias
        if s > 1:
            by_shift += tile.poses.shift_log_weights[:, None]
        scores[0].add_(scores[1])
        torch.add(scores[0], scores[1], alpha=-2, out=scores[1])
        return scores.view(shape)


class _Bank:
    """Slices of all base orientations up to one band limit, and the scores of chosen nodes there."""

    def __init__(self, slices: Tensor) -> None:
        self._size = slices.shape[1]
        parts = torch.view_as_real(slices.contiguous()).flatten(1)
        self._parts = parts.T
        self._power = (slices.real.square() + slices.imag.square()).T

    def scores(self, tile: _Tile, nodes: _Nodes) -> Tensor:
        """log p up to a constant of the image, (m,)."""
        data = torch.view_as_real(tile.data[..., : self._size].contiguous()).flatten(-2).flatten(0, -2)
        power = tile.power[..., : self._size].reshape(-1, self._size)
        n_rows, n_base = len(data), self._parts.shape[1]
        first_of_row = torch.zeros(n_rows + 1, dtype=torch.int64, device=data.device)
        torch.cumsum(torch.bincount(nodes.row, minlength=n_rows), dim=0, out=first_of_row[1:])
        poses = tile.poses
        log_weights = poses.base_log_weights[nodes.base]
        if tile.n_shifts > 1:
            log_weights = log_weights + poses.shift_log_weights[nodes.row % tile.n_shifts]
        # The rows of one image and symmetry, one a shift, have the same power and follow each other.
        bias = _sampled(first_of_row[:: tile.n_shifts], nodes.base, log_weights, n_base, power, self._power, -1.0)
        return _sampled(first_of_row, nodes.base, bias, n_base, data, self._parts, 2.0)


def _sampled(
    first_of_row: Tensor, column: Tensor, values: Tensor, n_columns: int, left: Tensor, right: Tensor, alpha: float
) -> Tensor:
    """values + alpha · (left @ right) at the listed places only: (m,)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        places = torch.sparse_csr_tensor(
            first_of_row.contiguous(),
            column,
            values,
            size=(len(left), n_columns),
            check_invariants=False,
        )
        result: Tensor = torch.sparse.sampled_addmm(places, left, right, beta=1.0, alpha=alpha).values()
    return result


def _near_best(scores: Tensor, image: Tensor, n_images: int, margin: float) -> Tensor:
    return scores >= (_maximum(scores, image, n_images) - margin)[image]


def _maximum(values: Tensor, image: Tensor, n_images: int) -> Tensor:
    """The largest value of each image, (b,)."""
    start = torch.full((n_images,), -torch.inf, dtype=values.dtype, device=values.device)
    return start.scatter_reduce_(0, image, values, "amax")


class _Sums:
    """Σ γ z, real (n_base, K, 2), and Σ γ c², (n_base, K)."""

    def __init__(self, slices: Tensor, dtype: torch.dtype) -> None:
        self.weight = torch.zeros(slices.shape, dtype=dtype, device=slices.device)
        self.numerator = torch.zeros(*slices.shape, 2, dtype=dtype, device=slices.device)

    def add(self, tile: _Tile, nodes: _Nodes, share: Tensor) -> None:
        """Add γ of nodes, summed over all that stem from one base node before they are written."""
        base, place = torch.unique(nodes.base, return_inverse=True)
        order = torch.argsort(place, stable=True)
        first = torch.zeros(len(base) + 1, dtype=torch.int64, device=base.device)
        torch.cumsum(torch.bincount(place, minlength=len(base)), dim=0, out=first[1:])
        row, share = nodes.row[order], share[order]
        data = torch.view_as_real(tile.data).flatten(-2).flatten(0, -2)
        power = tile.power.flatten(0, -2)
        self.numerator.flatten(1).index_add_(0, base, _product(first, row, share, data))
        of_power = torch.div(row, tile.n_shifts, rounding_mode="floor")
        self.weight.index_add_(0, base, _product(first, of_power, share, power))


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
    b, image = len(tile.images), tile.image_of(nodes.row)
    peak = _maximum(scores, image, b)
    likelihood = (scores - peak[image]).to(torch.float64).exp()
    count = torch.bincount(image, minlength=b)
    total = torch.segment_reduce(likelihood, "sum", lengths=count)
    squares = torch.segment_reduce(likelihood.square(), "sum", lengths=count)
    log_evidence = tile.images.log_constant + peak.to(torch.float64) + total.log()
    at_peak = (scores == peak[image]).nonzero().squeeze(1)
    best = torch.full((b,), len(scores), device=image.device).scatter_reduce_(0, image[at_peak], at_peak, "amin")
    row, base = nodes.row[best], nodes.base[best]
    symmetry = torch.div(row, tile.n_shifts, rounding_mode="floor") % 8
    turned = torch.div(symmetry, len(HALF_OF_SYMMETRIES), rounding_mode="floor")
    node = tile.poses.node(turned, symmetry % len(HALF_OF_SYMMETRIES), base)
    if sums is not None:
        share = likelihood / total[image]
        heavy = (share * count[image] > DROPPED_MASS).nonzero().squeeze(1)
        sums.add(tile, _Nodes(nodes.row[heavy], base=nodes.base[heavy]), share[heavy].to(scores.dtype))
    dtype = scores.dtype
    return log_evidence, (total.square() / squares).to(dtype), node, row % tile.n_shifts, (1 / total).to(dtype)
