"""Where a text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otn.wording import is_blank, length, split_text

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"  # one character to a reader, five to Python
FLAG = "\U0001f1e9\U0001f1ea"


@pytest.mark.parametrize(
    ("content", "most", "parts"),
    [
        ("", 10, []),
        (" \n ", 10, []),
        ("exactly 10", 10, ["exactly 10"]),
        ("One two. Three four five.", 14, ["One two.", "Three four", "five."]),
        ("One two. Three four five.", 16, ["One two.", "Three four five."]),
        ("Line one\nline two words", 16, ["Line one", "line two words"]),
        ("word word word", 9, ["word word", "word"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("\u4f60\u597d\u3002\u4f60\u597d\u5417", 4, ["\u4f60\u597d\u3002", "\u4f60\u597d\u5417"]),
        ("\U0001f600" * 3, 4, ["\U0001f600" * 2, "\U0001f600"]),
        ("\U0001f600" * 3, 5, ["\U0001f600" * 2, "\U0001f600"]),
        (FAMILY * 2, 15, [FAMILY, FAMILY]),
        (FLAG * 3, 10, [FLAG * 2, FLAG]),
        ("e\u0301" * 3, 3, ["e\u0301", "e\u0301", "e\u0301"]),
        ("\U0001f44d\U0001f3fd" * 2, 7, ["\U0001f44d\U0001f3fd"] * 2),
        ("a" + "\u0301" * 9, 4, ["a\u0301\u0301\u0301", "\u0301" * 4, "\u0301" * 2]),
    ],
)
def test_a_text_is_cut_where_a_reader_would(content: str, most: int, parts: list[str]) -> None:
    assert split_text(content, most) == parts


@given(st.text(max_size=400), st.integers(4, 60))
def test_cutting_loses_nothing_but_blanks(content: str, most: int) -> None:
    def solid(value: str) -> str:
        return "".join(each for each in value if not is_blank(each))

    parts = split_text(content, most)
    assert solid("".join(parts)) == solid(content)
    assert all(0 < length(part) <= most for part in parts)
