"""Normalisation of both texts before they are compared."""

from __future__ import annotations

import pytest

from moulin.errors import OptionsError
from moulin.evaluate.normalizer import TextNormalizer, parse_alike


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none", " One,  two ", "One, two"),
        ("case", "One, it's", "ONE, IT'S"),
        ("basic", "Oh, it’s ‘fine’ — well-known.", "OH IT'S FINE WELL KNOWN"),
        ("basic", "O'Neill's 'n' rock'", "O'NEILL'S N ROCK"),
        ("basic", "ÀÉ ﬁ ①", "ÀÉ FI 1"),
        ("basic", "你好。世界！", "你好 世界"),
        ("basic", "हिन्दी", "हिन्दी"),
        ("basic", "...", ""),
    ],
)
def test_texts(name: str, text: str, expected: str) -> None:
    assert TextNormalizer(name)(text) == expected


def test_words_that_count_as_others() -> None:
    normalize = TextNormalizer("basic", parse_alike(["oh=zero"], "basic"))
    assert normalize("Oh, ZERO. ohio") == "ZERO ZERO OHIO"
    assert normalize.description.endswith("OH counts as ZERO")


def test_normalising_twice_changes_nothing() -> None:
    normalize = TextNormalizer("basic")
    text = "It’s 3.14 — O'Neill, ﬁne!"
    assert normalize(normalize(text)) == normalize(text)


@pytest.mark.parametrize("pair", ["OH", "=ZERO", "OH=", "OH NO=ZERO"])
def test_pairs_that_are_none(pair: str) -> None:
    with pytest.raises(OptionsError, match="Expected WORD=OTHER"):
        parse_alike([pair], "basic")


def test_an_unknown_name() -> None:
    with pytest.raises(OptionsError, match="no normalizer 'whisper'"):
        TextNormalizer("whisper")
