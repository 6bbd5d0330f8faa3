"""How well maps explain particles that they are not made from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.parallel.team import Team


@dataclass(frozen=True)
class HeldOut:
    """Mean NLL of the held-out particles and how much lower it is than others, with standard errors; nats per image.

    `gain` is that over an empty map, `beyond_sphere` that over the map's own spherical average: what is explained by
    knowing how particles are oriented. While that is near zero orientations are not known.
    """

    nll: float
    standard_error: float
    gain: float
    gain_standard_error: float
    beyond_sphere: float
    beyond_sphere_standard_error: float

    @staticmethod
    def of(nll: Tensor, empty: Tensor, sphere: Tensor, team: Team) -> "HeldOut":
        """From the NLL of each particle under the map, an empty one, and the map's spherical average, (n,) each."""
        found = []
        for each in (nll, empty - nll, sphere - nll):
            # Of a single particle there is no error.
            error = each.std() / len(nll) ** 0.5 if len(nll) > 1 else torch.full_like(nll[0], torch.nan)
            found += [each.mean(), error]
        return HeldOut(*team.same(torch.stack(found)).tolist())

    def surely_below(self, gain: float) -> bool:
        """Whether the gain is lower than another by more than two standard errors."""
        return self.gain + 2 * self.gain_standard_error < gain
