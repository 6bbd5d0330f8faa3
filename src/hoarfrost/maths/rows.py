"""Dataclasses of tensors that all have a row for the same things: some of the rows, or those of several as one."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Base of frozen dataclasses whose fields are tensors (n, …)."""

    def columns(self) -> list[Tensor]:
        """The tensors, in the order of the fields."""
        return [getattr(self, field.name) for field in fields(self)]

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> Self:
        """The chosen rows, in the order of `index`."""
        chosen: Any = index
        return type(self)(*(column[chosen] for column in self.columns()))

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return type(self)(*(column.to(device) for column in self.columns()))

    @classmethod
    def cat(cls, parts: Sequence[Self], dim: int = 0) -> Self:
        """All of several, one after the other along a dimension."""
        return cls(*(torch.cat(of_field, dim) for of_field in zip(*(part.columns() for part in parts), strict=True)))
