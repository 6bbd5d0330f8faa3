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
SCORES_PER_TILE = 1 << 22
# The maximum over so many nodes at a time is compared with the best: comparing each costs more than its score.
NODES_PER_BLOCK = 16
BLOCKS_PER_PIECE = 96
# A log weight that no node has, finite because −∞ − ∞ would let nodes through that fill up the last block.
PADDING = -1e30


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
    """Scores of all nodes at the lowest band limit, from slices (n_base, K₀).

    Nodes are summed in pieces that fit the cache, each of w blocks of 16 neighbours, which have much the same score.
    Within a piece the block runs fastest, so that the maximum over a block runs along memory.
    """

    def __init__(self, slices: Tensor, poses: PoseModel) -> None:
        n_base, self._size = slices.shape
        n_blocks = -(-n_base // NODES_PER_BLOCK)
        self.n_pieces = -(-n_blocks // BLOCKS_PER_PIECE)
        self._width = -(-n_blocks // self.n_pieces)
        self.n_padded = self.n_pieces * self._width * NODES_PER_BLOCK
        padded = slices.new_zeros(self.n_padded, self._size)
        padded[:n_base] = slices
        log_weights = padded.real.new_full((self.n_padded, 1), PADDING)
        log_weights[:n_base, 0] = poses.base_log_weights
        real, imaginary = padded.real, padded.imag
        power = real.square() + imaginary.square()
        ones = torch.ones_like(log_weights)
        self._even = self._by_piece(torch.cat([2 * real, -power, log_weights, ones], dim=1))
        self._odd = self._by_piece(2 * imaginary)
        self._buffer = real.new_empty(0)

    def _by_piece(self, table: Tensor) -> Tensor:
        """A table (n_padded, c) by pieces: (n_pieces, 16 · w, c)."""
        blocks = table.view(self.n_pieces, self._width, NODES_PER_BLOCK, -1)
        return blocks.transpose(1, 2).reshape(self.n_pieces, NODES_PER_BLOCK * self._width, -1)

    def survivors(self, tile: _Tile, margin: float) -> _Nodes:
        """Nodes within the margin of each image's best."""
        scores, highest = self._scores(tile)
        least = highest.amax(dim=(1, 2, 3)) - margin
        image, half, place, block = (highest >= least[:, None, None, None]).nonzero().unbind(1)
        row = image * highest.shape[2] + place
        piece = torch.div(block, self._width, rounding_mode="floor")
        members = scores[piece, half, row, :, block % self._width]
        of_block, member = ((members >= least[image, None]) & (members > PADDING / 2)).nonzero().unbind(1)
        row = (image * 2 + half) * highest.shape[2] + place
        return _Nodes(row[of_block], block[of_block] * NODES_PER_BLOCK + member)

    def _scores(self, tile: _Tile) -> tuple[Tensor, Tensor]:
        """log p up to a constant of the image, and the highest of each block.

        Shapes are (n_pieces, 2, b · 4 · S, 16, w), plain and turned by 180°, and (b, 2, 4 · S, n_pieces · w).
        """
        b, n_shifts, size = len(tile.images), tile.n_shifts, self._size
        data = tile.data[:, 0, :, :, :size].reshape(-1, size)
        power = tile.power[:, 0, :, None, :size].expand(-1, -1, n_shifts, -1).reshape(-1, size)
        rows = len(data)
        shift_log_weights = tile.poses.shift_log_weights.repeat(rows // n_shifts)[:, None]
        even = torch.cat([data.real, power, torch.ones_like(shift_log_weights), shift_log_weights], dim=1)
        odd = data.imag.contiguous()
        if len(self._buffer) < 2 * rows * self.n_padded:
            # One buffer for all tiles: fresh memory for each would cost more than the arithmetic in page faults.
            self._buffer = even.new_empty(2 * rows * self.n_padded)
        columns = NODES_PER_BLOCK * self._width
        scores = self._buffer[: 2 * rows * self.n_padded].view(self.n_pieces, 2, rows, columns)
        highest = even.new_empty(self.n_pieces, 2, rows, self._width)
        for piece in range(self.n_pieces):
            plain, turned = scores[piece]
            torch.mm(even, self._even[piece].T, out=plain)
            torch.mm(odd, self._odd[piece].T, out=turned)
            plain.add_(turned)
            torch.add(plain, turned, alpha=-2, out=turned)
            torch.amax(scores[piece].view(2, rows, NODES_PER_BLOCK, -1), dim=2, out=highest[piece])
        by_image = highest.view(self.n_pieces, 2, b, rows // b, self._width).permute(2, 1, 3, 0, 4)
        by_block = scores.view(self.n_pieces, 2, rows, NODES_PER_BLOCK, self._width)
        return by_block, by_image.reshape(b, 2, rows // b, -1)


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
