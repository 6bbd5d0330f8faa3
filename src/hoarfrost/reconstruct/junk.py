"""Images that hold no particle, told from those that do by what the map explains of them.

With V the map, 0 the empty map and π the share of junk among the particles,

    p(junk | Ĩ) = π p(Ĩ | 0) / ( π p(Ĩ | 0) + (1 − π) p(Ĩ | V) )

An image weighs 1 − p(junk | Ĩ) in refinement's statistics, and π is the mean of p over the latest sweep (EM).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

FIRST_SHARE = 0.1
LEAST_SHARE, LARGEST_SHARE = 1e-3, 0.7


class JunkShare:
    """π, learnt sweep by sweep; zero before refinement, when a map is too poor to tell junk by."""

    def __init__(self) -> None:
        self.share = 0.0
        self._sum, self._count = 0.0, 0

    def begin(self) -> None:
        """Begin to tell junk."""
        self.share = FIRST_SHARE

    def state(self) -> dict[str, Any]:
        """π and what has been counted, for `restore`."""
        return {"share": self.share, "sum": self._sum, "count": self._count}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where another one was."""
        self.share, self._sum, self._count = state["share"], state["sum"], state["count"]

    def probability(self, log_evidence: Tensor, log_constant: Tensor) -> Tensor:
        """p(junk | Ĩ) of images whose log p(Ĩ | V) and log p(Ĩ | 0) are given in nats, same shape, float64."""
        gain = (log_evidence - log_constant).to(torch.float64)
        if self.share == 0:
            return torch.zeros_like(gain)
        return torch.sigmoid(math.log(self.share / (1 - self.share)) - gain)

    def count(self, probability: Tensor) -> None:
        """Take note of the images of a batch."""
        self._sum += float(probability.sum())
        self._count += len(probability)

    def learn(self) -> None:
        """Set π by the images counted since it was last set."""
        self.share = min(LARGEST_SHARE, max(LEAST_SHARE, self._sum / self._count))
        self._sum, self._count = 0.0, 0
