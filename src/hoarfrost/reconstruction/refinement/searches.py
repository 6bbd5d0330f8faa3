"""How many particles whose poses are known are searched for everywhere again: as many as it pays for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import final

from torch import Tensor

from hoarfrost.reconstruction.schedule import LEAST_SEARCHED, LEAST_SEARCHES, MOST_SEARCHED, SEARCHES_FOR_EACH


@final
@dataclass(frozen=True)
class Searches:
    """The `share` of known particles that a pass searches for again, and what the one under way has come to.

    Of `n_searched` particles `n_elsewhere` were found at a better pose than those known. Where there are many, more
    are worth a search.
    """

    share: float = MOST_SEARCHED
    n_searched: int = 0
    n_elsewhere: int = 0

    def counting(self, found_elsewhere: Tensor) -> Searches:
        """With particles that were searched for again: (m,), 1 for those found elsewhere."""
        n_elsewhere = self.n_elsewhere + int(found_elsewhere.sum())
        return dataclasses.replace(self, n_searched=self.n_searched + len(found_elsewhere), n_elsewhere=n_elsewhere)

    def learnt(self) -> Searches:
        """For the next pass, with the share that this one asks for."""
        if self.n_searched < LEAST_SEARCHES:
            return Searches(self.share)
        wanted = SEARCHES_FOR_EACH * self.n_elsewhere / self.n_searched
        return Searches(min(MOST_SEARCHED, max(LEAST_SEARCHED, wanted)))
