"""Deltas, however a segment grows: put together they are the text, and none is taken back."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from moulin.gateway.realtime_item import Delta, Item, log_probs
from moulin.live_transcript import Segment
from moulin.spacing import join_texts
from moulin.transcript import Word


def _segment(words: list[str], *, is_final: bool) -> Segment:
    text = ""
    for word in words:
        text = join_texts(text, word)
    return Segment(0, text, tuple(Word(word, 0.0, 0.1, 0.5) for word in words), is_final)


@given(
    st.lists(st.lists(st.sampled_from(["ONE", "TWO", "你", "好", "x"]), min_size=1, max_size=6), min_size=1, max_size=3)
)
def test_deltas_are_the_text(turns: list[list[str]]) -> None:
    item = Item("item_1", None, 0.0)
    deltas: list[Delta] = []
    for words in turns:
        for count in range(1, len(words) + 1):
            deltas.append(item.grow(_segment(words[:count], is_final=False)))
            assert len(deltas[-1].words) == (count > 1)  # the last word is held back
        deltas.append(item.close_segment(_segment(words, is_final=True)))
    assert "".join(delta.text for delta in deltas) == item.text
    assert [word for delta in deltas for word in delta.words] == item.words
    assert [word.word for word in item.words] == [word for words in turns for word in words]


def test_a_segment_that_shrinks_sends_nothing_twice() -> None:
    item = Item("item_1", None, 0.0)
    assert item.grow(_segment(["A", "B", "C"], is_final=False)).text == "A B"
    assert item.grow(_segment(["A", "B"], is_final=False)) == Delta("", ())
    assert item.close_segment(_segment(["A", "B", "D"], is_final=True)).text == " D"


def test_log_probabilities_are_the_words_confidences() -> None:
    (entry,) = log_probs([Word("né", 0.0, 0.1, 0.5)])
    assert entry == {"token": "né", "bytes": [0x6E, 0xC3, 0xA9], "logprob": math.log(0.5)}
