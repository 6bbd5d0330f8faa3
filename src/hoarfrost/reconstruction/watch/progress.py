"""How much of a run is done, for the progress bar: it never goes back, and skipped work is spread over what is left."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from hoarfrost.reconstruction.state.phase import LeftOut


@dataclass(frozen=True)
class FractionDone:
    """An estimate from the `seconds` that each part is expected to take, and its `costs`, parts of the whole.

    The first `n_repeated` stages are done for each of `starts`, one start after the other. `largest` is what was told.
    """

    seconds: tuple[float, ...]
    costs: tuple[float, ...]
    n_repeated: int
    starts: int
    largest: float = 0.0

    @classmethod
    def of(cls, seconds: Sequence[float], n_repeated: int, starts: int) -> FractionDone:
        """From the seconds of each stage."""
        every = (*(tuple(seconds[:n_repeated]) * starts), *seconds[n_repeated:])
        return cls(every, tuple(part / sum(every) for part in every), n_repeated, starts)

    def at(self, start: int, stage: int, done: float) -> FractionDone:
        """When `done` of a stage is; of those not repeated it matters not for which start."""
        part = self._part(start, stage)
        largest = min(1.0, max(self.largest, sum(self.costs[:part]) + done * self.costs[part]))
        return dataclasses.replace(self, largest=largest)

    def without(self, left_out: LeftOut, start: int) -> FractionDone:
        """With work left out while `start` is the latest: its stages, further starts, or stages up to the last.

        Or with stages that follow once "again": they share what is left of the whole.
        """
        first = left_out.first
        if left_out.what == "again":
            part = self._part(0, first)
            left = sum(self.seconds[part:])
            done = (self.largest, *([0.0] * (part - 1)))
            return dataclasses.replace(
                self, costs=(*done, *((1 - self.largest) * seconds / left for seconds in self.seconds[part:]))
            )
        if left_out.what == "up to the last":
            return self._skipping(self._part(0, first), len(self.costs) - 1)
        if left_out.what == "starts":
            is_expected = first < self.starts
            return self._skipping(first * self.n_repeated, self.starts * self.n_repeated) if is_expected else self
        if start >= self.starts:
            return self
        return self._skipping(start * self.n_repeated + first, (start + 1) * self.n_repeated)

    def _part(self, start: int, stage: int) -> int:
        # A start more than expected is still the last one.
        last = self.starts - 1
        return (min(start, last) if stage < self.n_repeated else last) * self.n_repeated + stage

    def _skipping(self, first: int, end: int) -> FractionDone:
        skipped, left = sum(self.costs[first:end]), sum(self.costs[end:])
        later = (cost * (1 + skipped / left) for cost in self.costs[end:])
        return dataclasses.replace(self, costs=(*self.costs[:first], *([0.0] * (end - first)), *later))
