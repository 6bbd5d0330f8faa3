"""Slices and sums of statistics as matrix products want them, in memory that is kept from call to call."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.model.all_poses.pose_model import PoseModel
from hoarfrost.parallel.threads import cores, each


class SliceBank:
    """Slices (n_base, K) of all base orientations as matrix products want them: in coordinates of `poses.harmonics`.

    `joint` (n_base, 2E) has, kind by kind, those of the real parts of 2 P_j V, and of −|P_j V|² with log w_j; `odd`
    (n_base, 2 O) those of the imaginary parts of 2 P_j V. Both, and all that is made with them, lie in `scratch`, which
    is that for volume `number` of those compared at the same time.
    """

    def __init__(self, slices: Tensor, poses: PoseModel, number: int = 0) -> None:
        n_base, self.size = slices.shape
        self.poses, self.scratch, basis, real = poses, poses.scratch(number), poses.harmonics, slices.real
        self.joint = self.scratch.take("slices, even", (n_base, basis.joint_size), real)
        self.odd = self.scratch.take("slices, odd", (n_base, 2 * basis.odd_size), real)
        pairs, log_weights = torch.view_as_real(slices), poses.base_log_weights

        def fill(over: slice) -> None:
            joint, odd = self.joint[over], self.odd[over]
            poses.kernels.arrange_slices(pairs[over], log_weights[over], basis, joint, odd)

        each(fill, _chunks(n_base), real.device)


@dataclass(frozen=True)
class Statistics:
    """Sums over images: `numerator` Σ γ z, complex (n_base, K), and `weight` Σ γ c², real (n_base, K)."""

    numerator: Tensor
    weight: Tensor


class StatisticSums:
    """Sums over images of γ Re z and γ c², `joint` (2E, n_base), and of γ Im z, `odd` (2 O, n_base), as coordinates.

    Orientations stand along the rows, as in the blocks of likelihoods: the product that sums them is faster that way.
    """

    def __init__(self, bank: SliceBank) -> None:
        self._size, self._poses = bank.size, bank.poses
        n_base = len(bank.joint)
        self.joint = bank.scratch.take("sums, even", (bank.joint.shape[1], n_base), bank.joint)
        self.odd = bank.scratch.take("sums, odd", (bank.odd.shape[1], n_base), bank.joint)
        self._begun = False

    def add(self, total: Tensor, values: Tensor, likelihoods: Tensor) -> None:
        """Add Σ value · likelihood over rows, (P, width) from (m, P) and (m, width), to a part of the sums."""
        if self._begun:
            total.addmm_(values.T, likelihoods)
        else:
            torch.mm(values.T, likelihoods, out=total)

    def begin(self) -> None:
        """All parts of the sums have been written to: what comes next is added."""
        self._begun = True

    def result(self) -> Statistics:
        """The statistics of slices."""
        n_base = self.joint.shape[1]
        numerator = self.joint.new_empty(n_base, self._size, 2)
        weight = self.joint.new_empty(n_base, self._size)

        def turn(over: slice) -> None:
            joint, odd = self.joint[:, over], self.odd[:, over]
            kernels, basis = self._poses.kernels, self._poses.harmonics
            kernels.arrange_statistics(joint, odd, basis, numerator[over], weight[over])

        each(turn, _chunks(n_base), self.joint.device)
        return Statistics(torch.view_as_complex(numerator), weight)


def _chunks(n: int) -> list[slice]:
    """Parts of n orientations, a few for each core."""
    step = math.ceil(n / (2 * cores()))
    return [slice(first, min(first + step, n)) for first in range(0, n, step)]
