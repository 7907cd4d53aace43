from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from moulin.live_transcript import LiveTranscript, Segment, StreamUpdate
from moulin.transcript import Transcript, Word

SECONDS = st.floats(0, 1e5)
WORDS = st.builds(Word, st.text(max_size=8), SECONDS, SECONDS, st.floats(0, 1))
SEGMENTS = st.builds(
    Segment, st.integers(0, 100), st.text(max_size=20), st.lists(WORDS, max_size=3).map(tuple), st.booleans()
)
UPDATES = st.builds(StreamUpdate, st.lists(SEGMENTS, max_size=3).map(tuple), st.booleans(), st.booleans(), SECONDS)

ONE = Word("ONE", 0.2, 0.32, 0.9)
TWO = Word("TWO", 0.6, 0.72, 0.8)
THREE = Word("THREE", 2.4, 2.6, 0.7)


def update(*segments: Segment, duration_sec: float = 1.0, is_final: bool = False) -> StreamUpdate:
    return StreamUpdate(segments, any(segment.is_final for segment in segments), is_final, duration_sec)


# --------------------------------------------------------------------------------------------------------------- JSON


@given(UPDATES)
def test_through_json_and_back(update: StreamUpdate) -> None:
    assert StreamUpdate.from_dict(json.loads(json.dumps(update.to_dict()))) == update


def test_to_dict_has_the_public_names() -> None:
    """The RESULT tensor of a stream is these keys in this order."""
    segment = Segment(3, "ONE TWO", (ONE, TWO), True)
    assert update(segment, duration_sec=1.25).to_dict() == {
        "segments": [
            {
                "number": 3,
                "text": "ONE TWO",
                "start_sec": 0.2,
                "end_sec": 0.72,
                "is_final": True,
                "words": [
                    {"word": "ONE", "start_sec": 0.2, "end_sec": 0.32, "confidence": 0.9},
                    {"word": "TWO", "start_sec": 0.6, "end_sec": 0.72, "confidence": 0.8},
                ],
            }
        ],
        "endpoint": True,
        "is_final": False,
        "duration_sec": 1.25,
    }
    assert list(update().to_dict()) == ["segments", "endpoint", "is_final", "duration_sec"]
    assert list(segment.to_dict()) == ["number", "text", "start_sec", "end_sec", "is_final", "words"]


def test_an_old_client_reads_a_newer_server() -> None:
    newer: dict[str, Any] = update(Segment(0, "ONE", (ONE,), True)).to_dict()
    newer["language"] = "en"
    newer["segments"][0]["speaker"] = 1
    newer["segments"][0]["words"][0]["phones"] = ["W", "AH", "N"]
    assert StreamUpdate.from_dict(newer) == update(Segment(0, "ONE", (ONE,), True))


def test_words_may_be_left_out() -> None:
    fields = {"number": 0, "text": "ONE", "is_final": True}
    assert Segment.from_dict(fields) == Segment(0, "ONE", (), True)
    assert (Segment.from_dict(fields).start_sec, Segment.from_dict(fields).end_sec) == (0.0, 0.0)


# ------------------------------------------------------------------------------------------------ put together again


def test_the_open_segment_changes_and_final_ones_stay() -> None:
    live = LiveTranscript()
    assert (live.text, live.transcript()) == ("", Transcript("", (), 0.0))
    live.apply(update(Segment(0, "WON", (), False), duration_sec=0.3))
    assert live.text == "WON"
    live.apply(update(Segment(0, "ONE TWO", (ONE, TWO), False), duration_sec=0.8))
    assert live.text == "ONE TWO"
    live.apply(update(Segment(0, "ONE TWO", (ONE, TWO), True), Segment(1, "THR", (), False), duration_sec=2.5))
    assert live.text == "ONE TWO THR"
    assert [*live.final, live.open] == [Segment(0, "ONE TWO", (ONE, TWO), True), Segment(1, "THR", (), False)]
    live.apply(update(Segment(1, "THREE", (THREE,), True), duration_sec=3.0, is_final=True))
    assert [*live.final[1:], live.open] == [Segment(1, "THREE", (THREE,), True), None]
    assert live.text == "ONE TWO THREE"
    assert live.transcript() == Transcript("ONE TWO THREE", (ONE, TWO, THREE), 3.0)


def test_an_open_segment_may_vanish() -> None:
    """A beam search may take back all words of a segment."""
    live = LiveTranscript()
    live.apply(update(Segment(0, "ONE", (ONE,), False)))
    live.apply(update(duration_sec=2.0))
    assert (live.open, live.text, live.duration_sec) == (None, "", 2.0)


def test_several_segments_may_close_at_once() -> None:
    """Where a client asks seldom."""
    live = LiveTranscript()
    live.apply(update(Segment(0, "ONE", (ONE,), True), Segment(1, "TWO", (TWO,), True), Segment(2, "X", (), False)))
    assert [segment.number for segment in live.final] == [0, 1]
    assert live.text == "ONE TWO X"


def test_english_joins_with_spaces_and_chinese_without() -> None:
    live = LiveTranscript()
    live.apply(update(Segment(0, "今天", (), True), Segment(1, "天气好", (), True), Segment(2, "OK", (), False)))
    assert live.text == "今天天气好 OK"


@given(st.lists(SEGMENTS, max_size=5))
def test_the_transcript_is_all_segments(segments: list[Segment]) -> None:
    live = LiveTranscript()
    for segment in segments:
        live.apply(update(segment))
    kept = [segment for segment in segments if segment.is_final]
    if segments and not segments[-1].is_final:
        kept.append(segments[-1])
    assert live.transcript().words == tuple(word for segment in kept for word in segment.words)
    assert live.transcript().text == live.text
    assert live.text.replace(" ", "") == "".join(segment.text for segment in kept).replace(" ", "")
