"""JSON of clients and files: the standard library's values, or a JsonError."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.untrusted_json import MOST_DEPTH, JsonError, read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(VALUES, st.booleans())
def test_values_are_the_standard_librarys(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert read_json(text, most_bytes=1 << 20) == value
    assert read_json(text.encode(), most_bytes=1 << 20) == value


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "Expecting value"),
        ("[1,]", "line 1"),
        ("NaN", "NaN is no JSON"),
        ('{"a": -Infinity}', "-Infinity is no JSON"),
        ("[1e999]", "too large, 1e999"),
        ("1" * 1001, "1,001 digits"),
        ("1" * 1_000_000, "1,000,000 digits"),
        ('{"a": 1, "b": 2, "a": 3}', "names 'a' twice"),
        ('[{"a": {"\\u0061": 1, "a": 3}}]', "names 'a' twice"),
        ('"\\ud800"', r"half of a surrogate pair, '\\ud800'"),
        ('{"\\udfff": 1}', "half of a surrogate pair"),
        ('{"a": ["x\\ud83d y"]}', "half of a surrogate pair"),
        ("[" * 40 + "]" * 40, "more than 32 levels"),
        ('{"a":' * 40 + "1" + "}" * 40, "more than 32 levels"),
        ("[" * 1_000_000, "more than 32 levels"),
        (b"\xed\xa0\x80", "not UTF-8"),
        (b'"\xff"', r"not UTF-8 \(byte 1\)"),
        ('"' + "x" * (1 << 21) + '"', "expected at most 1,048,576 bytes"),
        ('"\n"', "Invalid control character"),
        ("nul", "Expecting value"),
    ],
    ids=lambda value: repr(value)[:16],
)
def test_what_is_refused(text: str | bytes, match: str) -> None:
    with pytest.raises(JsonError, match=match) as caught:
        read_json(text, most_bytes=1 << 20)
    assert len(str(caught.value)) < 300


def test_as_deep_as_allowed() -> None:
    text = "[" * MOST_DEPTH + "]" * MOST_DEPTH
    assert read_json(text, most_bytes=100) == json.loads(text)
    with pytest.raises(JsonError):
        read_json(f"[{text}]", most_bytes=100)


def test_whole_surrogate_pairs_and_byte_order_marks() -> None:
    assert read_json('"\\ud83d\\ude00"', most_bytes=100) == "😀"
    assert read_json(b"\xef\xbb\xbf{}", most_bytes=100) == {}
