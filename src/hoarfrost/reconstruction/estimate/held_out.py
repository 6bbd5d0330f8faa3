"""How well maps explain particles that they are not made from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.parallel.team import Team


@dataclass(frozen=True)
class HeldOut:
    """Mean NLL of the held-out particles, and the gain over an empty map, with standard errors; nats per image."""

    nll: float
    standard_error: float
    gain: float
    gain_standard_error: float

    @staticmethod
    def of(nll: Tensor, empty: Tensor, team: Team) -> "HeldOut":
        """From the NLL of each particle under the map and under an empty one, (n,) each."""
        gain, root = empty - nll, len(nll) ** 0.5
        # Of a single particle both errors are NaN.
        errors = [each.std() / root if len(nll) > 1 else torch.full_like(nll[0], torch.nan) for each in (nll, gain)]
        return HeldOut(*team.same(torch.stack([nll.mean(), errors[0], gain.mean(), errors[1]])).tolist())

    def surely_below(self, gain: float) -> bool:
        """Whether the gain is lower than another by more than two standard errors."""
        return self.gain + 2 * self.gain_standard_error < gain
