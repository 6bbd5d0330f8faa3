"""How much of a run is done, for the progress bar: it never goes back, and skipped work is spread over what is left."""

from __future__ import annotations

from typing import Any


class ShareDone:
    """An estimate from the seconds that each part is expected to take.

    `seconds` are those of each stage. The first `n_repeated` are done for each of `starts`, one start after the other.
    """

    def __init__(self, seconds: list[float], n_repeated: int, starts: int) -> None:
        self._n_repeated, self._starts = n_repeated, starts
        self._largest = 0.0
        self.expect(seconds)

    def expect(self, seconds: list[float]) -> None:
        """Take other seconds for the same parts."""
        self._seconds = seconds[: self._n_repeated] * self._starts + seconds[self._n_repeated :]
        self._costs = [part / sum(self._seconds) for part in self._seconds]

    def state(self) -> dict[str, Any]:
        """What it goes by, for `restore`."""
        return {"largest": self._largest, "costs": self._costs, "seconds": self._seconds}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where another one for the same parts was."""
        self._largest, self._costs, self._seconds = state["largest"], list(state["costs"]), list(state["seconds"])

    def at(self, start: int, stage: int, done: float) -> float:
        """Share of the run that is done, when `done` of a stage is; of those not repeated it matters not for which."""
        part = self._part(start, stage)
        self._largest = min(1.0, max(self._largest, sum(self._costs[:part]) + done * self._costs[part]))
        return self._largest

    def skip_stages(self, start: int, first: int) -> None:
        """A start leaves out its repeated stages from `first` on."""
        if start < self._starts:
            self._skip(start * self._n_repeated + first, (start + 1) * self._n_repeated)

    def skip_to_last(self, first: int) -> None:
        """Of the stages not repeated, those from `first` on to before the last are left out."""
        self._skip(self._part(0, first), len(self._costs) - 1)

    def skip_starts(self, first: int) -> None:
        """There are no starts from `first` on."""
        if first < self._starts:
            self._skip(first * self._n_repeated, self._starts * self._n_repeated)

    def begin_again(self, first: int) -> None:
        """Of the stages not repeated, those from `first` on follow once more: they share what is left of the whole."""
        part = self._part(0, first)
        left = sum(self._seconds[part:])
        self._costs[:part] = [self._largest] + [0.0] * (part - 1)
        self._costs[part:] = [(1 - self._largest) * seconds / left for seconds in self._seconds[part:]]

    def _part(self, start: int, stage: int) -> int:
        # A start more than expected is still the last one.
        last = self._starts - 1
        return (min(start, last) if stage < self._n_repeated else last) * self._n_repeated + stage

    def _skip(self, first: int, end: int) -> None:
        skipped, left = sum(self._costs[first:end]), sum(self._costs[end:])
        self._costs[first:end] = [0.0] * (end - first)
        self._costs[end:] = [cost * (1 + skipped / left) for cost in self._costs[end:]]
