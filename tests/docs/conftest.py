"""Pages of the documentation as tests read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its content, and the line of the page on which that begins."""

    language: str
    content: str
    line: int


CodeBlocks = Callable[..., list[Block]]


@pytest.fixture(scope="session")
def docs() -> Path:
    """The folder of the pages."""
    return DOCS


@pytest.fixture(scope="session")
def code_blocks() -> CodeBlocks:
    """A function that returns the blocks of a page in one language, or in all."""

    def blocks(page: str, language: str | None = None) -> list[Block]:
        text = (DOCS / page).read_text()
        found = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
        all_blocks = [Block(match[1], match[2], text.count("\n", 0, match.start()) + 2) for match in found]
        return [block for block in all_blocks if language is None or block.language == language]

    return blocks
