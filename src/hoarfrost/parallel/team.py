"""The processes of one run: each takes its share of every batch, and what they find is summed over all of them.

`Team` is one process alone; `parallel.join` gives the team that torchrun started. All processes draw the same random
numbers and take their part of them. All see the same sums, to the last bit: a sum is made in one place and sent to all.
What is computed from sums (a map, a decision) could still differ in its last bits between unlike machines. So the first
process computes it, and the others take it over (`once`).
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class Rows(Protocol):
    """Something that has one row for each image: a tensor, whitened images."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, index: slice, /) -> Self:
        """Some of the rows."""


AnyRows = TypeVar("AnyRows", bound=Rows)
RowsOfTensors = TypeVar("RowsOfTensors")


class Team:
    """One process alone."""

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints, and writes the files."""
        return self.rank == 0

    def bounds(self, n: int) -> tuple[int, int]:
        """First row of this process's share of `n`, and the first that is not; shares differ by one row at most."""
        return n * self.rank // self.size, n * (self.rank + 1) // self.size

    def share(self, rows: AnyRows) -> AnyRows:
        """The rows of this process's share, of rows that all have."""
        first, last = self.bounds(len(rows))
        return rows[first:last]

    def gather(self, rows: Tensor, n: int) -> Tensor:
        """All `n` rows, (n, …), of which each process has the rows of its share, in order."""
        return rows

    def gather_rows(self, value: RowsOfTensors, n: int) -> RowsOfTensors:
        """A dataclass whose fields are tensors (share, …), with all `n` rows in each."""
        names = [field.name for field in dataclasses.fields(value)]  # type: ignore[arg-type]  # it is a dataclass
        return type(value)(**{name: self.gather(getattr(value, name), n) for name in names})

    def gather_all(self, rows: Tensor) -> Tensor:
        """The rows of all processes, those of the first first, however many each has."""
        return rows

    def sum_(self, *tensors: Tensor) -> None:
        """Turn each tensor into its sum over the processes; all are of one type."""

    def once(self, compute: Callable[[], Tensor], like: Tensor) -> Tensor:
        """What the first process computes: of the shape, type and device of `like`, which stays as it is."""
        return compute()

    def same(self, value: Tensor) -> Tensor:
        """The first process's value, where all have one that may differ in its last bits."""
        return self.once(lambda: value, value)

    def once_number(self, compute: Callable[[], float]) -> float:
        """The number that the first process computes."""
        place = torch.zeros((), dtype=torch.float64)
        return float(self.once(lambda: place + compute(), place))

    def agree(self, work: Callable[[], Result]) -> Result:
        """Do `work` in every process, and go on only if it was done in all.

        Raises the HoarfrostError of the first process in which it failed, in every process.
        """
        return work()

    def agree_on(self, text: str) -> None:
        """Raise UsageError unless all processes have the same text."""
