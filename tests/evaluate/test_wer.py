"""Counts by hand."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.errors import EngineError
from moulin.evaluate.wer import (
    WordErrors,
    align_words,
    alignment_view,
    count_character_errors,
    count_word_errors,
    digits_spelled_alike,
)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("ONE TWO THREE", "ONE TWO THREE", WordErrors(3, 0, 0, 0)),
        ("ONE TWO THREE", "ONE THREE", WordErrors(3, 0, 1, 0)),
        ("ONE TWO THREE", "ONE TWO TWO THREE", WordErrors(3, 1, 0, 0)),
        ("ONE TWO THREE", "ONE SIX THREE", WordErrors(3, 0, 0, 1)),
        ("ONE TWO THREE FOUR", "TWO FIVE FOUR SIX", WordErrors(4, 1, 1, 1)),
        ("ONE TWO", "", WordErrors(2, 0, 2, 0)),
        ("", "ONE TWO", WordErrors(0, 2, 0, 0)),
        ("", "", WordErrors(0, 0, 0, 0)),
        ("one  two\tthree", " ONE TWO THREE\n", WordErrors(3, 0, 0, 0)),
    ],
)
def test_counts(reference: str, hypothesis: str, expected: WordErrors) -> None:
    assert count_word_errors(reference, hypothesis) == expected


def test_rates() -> None:
    assert WordErrors(4, 1, 1, 1).rate == 0.75
    assert WordErrors(2, 3, 0, 2).rate == 2.5
    assert WordErrors().rate == 0.0
    assert WordErrors(0, 2, 0, 0).rate == 1.0


def test_a_sum_is_pooled_and_not_averaged() -> None:
    short, long = count_word_errors("ONE", "TWO"), count_word_errors("ONE " * 9, "ONE " * 9)
    total = short + long
    assert total == WordErrors(10, 0, 0, 1)
    assert total.rate == 0.1


def test_oh_is_zero_on_both_sides() -> None:
    assert digits_spelled_alike("oh One  ZERO\n") == "ZERO ONE ZERO"
    assert count_word_errors("ZERO OH ONE", "OH ZERO OH", normalize=digits_spelled_alike).errors == 1


def test_without_kaldialign_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaldialign", None)
    with pytest.raises(EngineError, match="kaldialign") as caught:
        count_word_errors("ONE", "ONE")
    assert caught.value.hint == "pip install '.[bench]' in moulin's folder"


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("ab cd", "abcd", WordErrors(4, 0, 0, 0)),
        ("你好世界", "你好界", WordErrors(4, 0, 1, 0)),
        ("", "ab", WordErrors(0, 2, 0, 0)),
    ],
)
def test_characters_without_their_spaces(reference: str, hypothesis: str, expected: WordErrors) -> None:
    assert count_character_errors(reference, hypothesis) == expected


def test_an_alignment_shows_what_is_wrong_in_three_lines() -> None:
    pairs = align_words("one two three four", "two five four six")
    assert pairs == [("ONE", None), ("TWO", "TWO"), ("THREE", "FIVE"), ("FOUR", "FOUR"), (None, "SIX")]
    assert alignment_view(pairs).splitlines() == [
        "said  ONE TWO THREE FOUR ***",
        "heard *** TWO FIVE  FOUR SIX",
        "      D       S          I",
    ]
    assert alignment_view([]) == "said\nheard"


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_an_alignment_has_as_many_errors_as_are_counted_and_loses_no_word(said: list[str], heard: list[str]) -> None:
    pairs = align_words(" ".join(said), " ".join(heard), normalize=str)
    counted = count_word_errors(" ".join(said), " ".join(heard), normalize=str)
    assert sum(a != b for a, b in pairs) == counted.errors
    assert [a for a, _ in pairs if a is not None] == said
    assert [b for _, b in pairs if b is not None] == heard
