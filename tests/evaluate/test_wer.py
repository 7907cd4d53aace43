"""Counts by hand."""

from __future__ import annotations

import sys

import pytest

from moulin.errors import EngineError
from moulin.evaluate.wer import WordErrors, count_word_errors, digits_spelled_alike


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
    assert caught.value.hint == "pip install 'moulin[bench]'"
