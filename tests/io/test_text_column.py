"""A column of texts behaves as the list that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoarfrost.io.text_column import TextColumn


@given(st.lists(st.text(max_size=8)))
def test_it_is_the_list_that_it_was_made_of(texts: list[str]) -> None:
    column = TextColumn(iter(texts))
    assert list(column) == texts
    assert column == texts
    assert len(column) == len(texts)
    assert [column[i] for i in range(-len(texts), len(texts))] == texts * 2
    assert column[1:3] == texts[1:3]
    assert column != [*texts, "more"]


def test_it_knows_its_ends() -> None:
    with pytest.raises(IndexError):
        TextColumn(["a"])[1]
    assert TextColumn(["a", "b"]) != "ab"
    assert repr(TextColumn("abcdefg")).startswith("TextColumn(['a'")


def test_numbers_are_read_from_it() -> None:
    assert np.array(TextColumn(["1.5", "-2"]), dtype=float).tolist() == [1.5, -2.0]
