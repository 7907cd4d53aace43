from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.spacing import is_cjk, join_texts


@pytest.mark.parametrize("char", "你好のカー㐀豈𠀀")
def test_scripts_without_spaces(char: str) -> None:
    assert is_cjk(char)


@pytest.mark.parametrize("char", "aZß1 .'가я。、ا")
def test_scripts_with_spaces_and_what_is_no_letter(char: str) -> None:
    """Korean has spaces between words."""
    assert not is_cjk(char)


@pytest.mark.parametrize(
    ("left", "right", "joined"),
    [
        ("ONE TWO", "THREE", "ONE TWO THREE"),
        ("今天", "天气好", "今天天气好"),
        ("カタ", "カナ", "カタカナ"),
        ("说", "HELLO", "说 HELLO"),
        ("HELLO", "世界", "HELLO 世界"),
        ("안녕", "하세요", "안녕 하세요"),
        ("", "ONE", "ONE"),
        ("ONE", "", "ONE"),
        ("", "", ""),
    ],
)
def test_join(left: str, right: str, joined: str) -> None:
    assert join_texts(left, right) == joined


WORDS = st.text("ab你好", min_size=1, max_size=3)


@given(st.lists(WORDS, max_size=6), st.integers(0, 6))
def test_the_order_of_joining_does_not_matter(words: list[str], cut: int) -> None:
    """A transcript grows at its end and is put together from segments: both give one text."""

    def joined(pieces: list[str]) -> str:
        text = ""
        for piece in pieces:
            text = join_texts(text, piece)
        return text

    assert join_texts(joined(words[:cut]), joined(words[cut:])) == joined(words)
    assert joined(words).replace(" ", "") == "".join(words)
