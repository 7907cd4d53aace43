"""Quotes are short whatever they are of, and are what `repr` says of what is short."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.quoting import MOST_MESSAGE_BYTES, bounded, cut, listed, quoted, without_controls

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "value", ["a", 'it\'s "x"', "ü\n\x1b", "\ud800", b"\0x", 7, -1.5, None, True, [1, "a"], (1,), {}]
)
def test_what_is_short_is_quoted_as_python_does(value: Any) -> None:
    assert quoted(value) == repr(value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 10_000_000, "'" + "x" * 80 + "'… (10,000,000 characters)"),
        (b"x" * 200, "b'" + "x" * 80 + "'… (200 bytes)"),
        (10**100_000, "a number of 332,193 bits"),
        ([0] * 10_000_000, "a list of 10,000,000"),
        (dict.fromkeys(range(5)), "a dict of 5"),
        (object(), "a object"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_long_is_cut(value: Any, shown: str) -> None:
    assert quoted(value) == shown


@given(JSON)
def test_quotes_are_one_short_line(value: Any) -> None:
    text = quoted(value)
    assert len(text) < 600
    assert text.isprintable()
    text.encode()


def test_what_holds_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert len(quoted(loop)) < 300


@given(st.text(alphabet=st.characters(codec=None)), st.integers(1, 40))
def test_cut_text_is_printable_and_no_longer(text: str, most: int) -> None:
    assert len(cut(text, most)) <= most
    assert cut(text, most).isprintable()


@given(st.text(alphabet=st.characters(codec=None)), st.integers(3, 40))
def test_bounded_text_has_no_more_bytes(text: str, most: int) -> None:
    assert len(bounded(text, most).encode()) <= most


def test_short_messages_are_left_alone() -> None:
    assert bounded("Grüße\n" * 10) == "Grüße\n" * 10
    assert len(bounded("ü" * 10_000).encode()) <= MOST_MESSAGE_BYTES


def test_lists_are_counted() -> None:
    assert listed([]) == "none"
    assert listed("abc") == "a, b, c"
    assert listed(range(1000), 3) == "0, 1, 2, 997 more"


def test_a_name_is_one_field_of_a_line() -> None:
    assert without_controls("a\tb\nc\x1b[31m\x85\u2028.wav") == r"a\tb\nc\x1b[31m\x85\u2028.wav"
    assert without_controls("U\u0308 né 50%s\udcff.wav") == "U\u0308 né 50%s\udcff.wav"
