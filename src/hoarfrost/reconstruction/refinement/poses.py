"""What a pass finds out of each particle: its most probable class and pose, its log-evidence, whether it is junk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.estimate.junk import Junk
from hoarfrost.reconstruction.refinement.visit import Visit


@final
@dataclass(frozen=True)
class Poses:
    """Of n particles, or a batch, in the order of the STAR file; float64, zero before they are visited.

    `class_probability` (n, C): that the particle shows each class, whose poses follow for the most probable one.
    `rotations` (n, 3, 3) and `shifts_A` (n, 2): the best pose of the most probable mode; `probability` (n,): that
    mode's share of the posterior; `log_evidence` (n,): log p(Ĩ | V) in nats; `junk` (n,): the probability that there is
    no particle, zero without refinement.
    """

    class_probability: Tensor
    rotations: Tensor
    shifts_A: Tensor
    probability: Tensor
    log_evidence: Tensor
    junk: Tensor

    @classmethod
    def none(cls, n: int, classes: int) -> Poses:
        """Of n particles that nobody has visited."""
        double = torch.float64
        numbers = torch.zeros(3, n, dtype=double)
        return cls(
            torch.zeros(n, classes, dtype=double),
            torch.zeros(n, 3, 3, dtype=double),
            torch.zeros(n, 2, dtype=double),
            *(row.clone() for row in numbers),
        )

    @classmethod
    def of(cls, visit: Visit, junk: Junk, pixel_size_A: float, shift_extent_A: float) -> Poses:
        """Of the process's share of a visit, with what is known of junk."""
        found = cls.none(len(visit.indices), visit.own_log_evidence.shape[1])
        found.class_probability.copy_(visit.own_log_evidence.softmax(dim=1))
        best_class = found.class_probability.argmax(dim=1)
        for c, view in enumerate(visit.views):
            if view is None:
                continue
            rows = view.rows.cpu()
            mine = (best_class[rows] == c).nonzero().squeeze(1)
            here, modes = rows[mine], view.posterior.modes[mine.to(view.rows.device)]
            found.rotations[here] = modes.rotations[:, 0].cpu()
            best = modes.shifts_px[:, 0].cpu() * pixel_size_A
            # The wall about the allowed shifts gives a little.
            found.shifts_A[here] = best * (shift_extent_A / best.norm(dim=1, keepdim=True).clamp(min=1e-9)).clamp(max=1)
            of_class = found.class_probability[here, c]
            found.probability[here] = modes.share()[:, 0].cpu().to(torch.float64) * of_class
        found.log_evidence.copy_(visit.own_log_evidence.logsumexp(dim=1))
        found.junk.copy_(junk.probability(visit.own_gain, visit.own_junk))
        return found

    def put(self, indices: Tensor, share: Poses, team: Team) -> None:
        """Write those of the particles `indices` (b,) of a batch, of which each process has its share."""
        of_all = team.gather_rows(share, len(indices))
        for name, column in vars(self).items():
            column[indices] = getattr(of_all, name)
