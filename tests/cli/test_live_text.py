"""Text written where nothing can be taken back."""

from __future__ import annotations

import io

from moulin.cli.live_text import GrowingText
from moulin.live_transcript import Segment, StreamUpdate
from moulin.transcript import Word


def update(*segments: tuple[str, bool]) -> StreamUpdate:
    made = [
        Segment(number, text, tuple(Word(word, 0, 1, 1) for word in text.split()), final)
        for number, (text, final) in enumerate(segments)
    ]
    return StreamUpdate(tuple(made), False, False, 1.0)


def written(*updates: StreamUpdate) -> list[str]:
    """What is there after each update, and at the end."""
    to, seen = io.StringIO(), []
    growing = GrowingText(to)
    for each in updates:
        growing.write(each)
        seen.append(to.getvalue())
    growing.end()
    return [*seen, to.getvalue()]


def test_the_last_word_waits() -> None:
    assert written(
        update(("ONE", False)), update(("ONE TW", False)), update(("ONE TWO", True), ("THREE FOUR", False))
    ) == [
        "",
        "ONE",
        "ONE TWO\nTHREE",
        "ONE TWO\nTHREE",
    ]


def test_a_word_that_moves_into_the_next_segment() -> None:
    said = update(("ONE TWO THREE", False)), update(("ONE TWO", True), ("THREE", False)), update(("THREE", True))
    assert written(*said)[-1] == "ONE TWO\nTHREE\n"


def test_a_word_that_changes_after_it_was_written() -> None:
    said = update(("WON TWO", False)), update(("ONE TWO THREE", False)), update(("ONE TWO THREE", True))
    assert written(*said) == ["WON", "WON", "WON\nONE TWO THREE\n", "WON\nONE TWO THREE\n"]


def test_nothing_was_said() -> None:
    assert written(update()) == ["", "\n"]
