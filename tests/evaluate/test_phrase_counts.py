"""Phrases in references and transcripts."""

from __future__ import annotations

import pytest

from moulin.evaluate.phrase_counts import PhraseCounts


@pytest.mark.parametrize(
    ("said", "heard", "counts"),
    [
        ("call new york now", "call new york now", (1, 1, 0)),
        ("call new york now", "call new work now", (1, 0, 0)),
        ("call new fork now", "call new york now", (0, 0, 1)),
        ("new york or new york", "new york or newer", (2, 1, 0)),
        ("new york a b c", "a b c new york", (1, 0, 1)),
        ("york", "new york", (0, 0, 1)),
        ("a new york b", "a new york york b", (1, 1, 0)),
        ("", "", (0, 0, 0)),
    ],
)
def test_where_phrases_are(said: str, heard: str, counts: tuple[int, int, int]) -> None:
    found = PhraseCounts.of(said, heard, ["New York", "new  york", ""], str.lower)
    assert (found.said, found.found, found.invented) == counts


def test_sums() -> None:
    total = PhraseCounts(4, 3, 1) + PhraseCounts(1, 0, 2)
    assert total == PhraseCounts(5, 3, 3)
    assert total.recall == 0.6
    assert PhraseCounts(0, 0, 3).recall is None
