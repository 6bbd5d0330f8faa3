"""A column of short texts without an object for each: a particle file has millions of them."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np


class TextBuilder:
    """A column that grows, text by text, each in UTF-8."""

    def __init__(self) -> None:
        self.data, self.ends = bytearray(), array("Q", [0])

    def append(self, text: bytes) -> None:
        """Add one."""
        self.data += text
        self.ends.append(len(self.data))


class TextColumn(Sequence[str]):
    """A sequence of texts that never changes, as one run of bytes and the end of each: 4 bytes a text besides its own.

    A list of Python's strings takes about 60 bytes more for each.
    """

    __hash__ = None  # type: ignore[assignment]  # compares equal to lists, which have none

    def __init__(self, texts: Iterable[str] | TextBuilder) -> None:
        if not isinstance(texts, TextBuilder):
            builder = TextBuilder()
            for text in texts:
                builder.append(text.encode())
            texts = builder
        self._data = bytes(texts.data)
        self._ends = np.array(texts.ends, np.uint32 if len(self._data) < 1 << 32 else np.uint64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"text {index} of {len(self)}")
        place = index % len(self)
        return self._data[self._ends[place] : self._ends[place + 1]].decode()

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends[1:].tolist():
            yield self._data[start:end].decode()
            start = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"TextColumn({list(self[:5])}{', …' if len(self) > 5 else ''})"
