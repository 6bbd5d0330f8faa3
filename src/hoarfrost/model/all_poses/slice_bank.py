"""Slices and sums of statistics as matrix products want them, in memory that is kept from call to call."""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor

from hoarfrost.model.all_poses.harmonic_kernel import arrange_slices, arrange_statistics
from hoarfrost.model.all_poses.plane_harmonics import PlaneHarmonics
from hoarfrost.parallel.threads import each

HUGE_PAGE = 1 << 21


class Scratch:
    """Memory that is used again from call to call: fresh pages would cost as much as a quarter of the arithmetic.

    On Linux it asks for huge pages, with which matrix products take 5 to 10 % less time.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A tensor of that shape with anything in it, valid until the name is taken again."""
        n = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or len(kept) < n or kept.dtype != like.dtype or kept.device != like.device:
            self._kept.pop(name, None)
            kept = self._kept[name] = _huge(n, like) if like.device.type == "cpu" else like.new_empty(n)
        return kept[:n].view(shape)


def _huge(n: int, like: Tensor) -> Tensor:
    """Numbers on the CPU, on huge pages where the system has them."""
    size = n * like.element_size()
    if size < HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return like.new_empty(n)
    region = mmap.mmap(-1, -(-size // HUGE_PAGE) * HUGE_PAGE)
    region.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(region, dtype=like.dtype, count=n)


class SliceBank:
    """Slices of all base orientations as matrix products want them: in coordinates of `basis`.

    `joint` (n_base, 2E) has, kind by kind, those of the real parts of 2 P_j V, and of −|P_j V|² with log w_j; `odd`
    (n_base, 2 O) those of the imaginary parts of 2 P_j V. Both, and all that is made with them, lie in `scratch`.
    """

    def __init__(self, slices: Tensor, base_log_weights: Tensor, basis: PlaneHarmonics, scratch: Scratch) -> None:
        n_base, self.size = slices.shape
        self.scratch, self.basis, real = scratch, basis, slices.real
        self.joint = scratch.take("slices, even", (n_base, basis.joint_size), real)
        self.odd = scratch.take("slices, odd", (n_base, 2 * basis.odd_size), real)

        pairs = torch.view_as_real(slices)

        def fill(over: slice) -> None:
            arrange_slices(pairs[over], base_log_weights[over], basis, self.joint[over], self.odd[over])

        each(fill, _chunks(n_base), real.device)


class StatisticSums:
    """Sums over images of γ Re z and γ c², `joint` (2E, n_base), and of γ Im z, `odd` (2 O, n_base), as coordinates.

    Orientations stand along the rows, as in the blocks of likelihoods: the product that sums them is faster that way.
    """

    def __init__(self, bank: SliceBank) -> None:
        self._size, self._basis = bank.size, bank.basis
        n_base = len(bank.joint)
        self.joint = bank.scratch.take("sums, even", (bank.joint.shape[1], n_base), bank.joint)
        self.odd = bank.scratch.take("sums, odd", (bank.odd.shape[1], n_base), bank.joint)
        # Whether there is anything in the sums yet: the first to add writes.
        self.begun = False

    def result(self) -> tuple[Tensor, Tensor]:
        """Σ γ z, complex (n_base, K), and Σ γ c², (n_base, K)."""
        n_base = self.joint.shape[1]
        numerator = self.joint.new_empty(n_base, self._size, 2)
        weight = self.joint.new_empty(n_base, self._size)

        def turn(over: slice) -> None:
            sums = self.joint[:, over], self.odd[:, over]
            arrange_statistics(*sums, self._basis, numerator[over], weight[over])

        each(turn, _chunks(n_base), self.joint.device)
        return torch.view_as_complex(numerator), weight


def _chunks(n: int) -> list[slice]:
    """Parts of n orientations, a few for each core."""
    step = math.ceil(n / (2 * torch.get_num_threads()))
    return [slice(first, min(first + step, n)) for first in range(0, n, step)]
