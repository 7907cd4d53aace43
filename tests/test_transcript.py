from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from moulin.transcript import Alternative, Part, PlacedWord, Transcript, Word

SECONDS = st.floats(0, 1e5)
WORDS = st.builds(Word, st.text(max_size=8), SECONDS, SECONDS, st.floats(0, 1))


@given(st.text(), st.lists(WORDS, max_size=5).map(tuple), SECONDS)
def test_through_json_and_back(text: str, words: tuple[Word, ...], duration_sec: float) -> None:
    transcript = Transcript(text, words, duration_sec)
    assert Transcript.from_dict(json.loads(json.dumps(transcript.to_dict()))) == transcript


def test_to_dict_has_the_public_names() -> None:
    """`--format json` and the RESULT tensor are these keys in this order."""
    assert Transcript("HI", (Word("HI", 0.2, 0.24, 0.9),), 1.5).to_dict() == {
        "text": "HI",
        "words": [{"word": "HI", "start_sec": 0.2, "end_sec": 0.24, "confidence": 0.9}],
        "duration_sec": 1.5,
    }
    assert list(Transcript("", (), 0.0).to_dict()) == ["text", "words", "duration_sec"]


def test_an_old_client_reads_a_newer_server() -> None:
    word = {"word": "HI", "start_sec": 0.2, "end_sec": 0.24, "confidence": 0.9, "speaker": 1}
    newer = {"text": "HI", "words": [word], "duration_sec": 1.5, "language": "en"}
    assert Transcript.from_dict(newer) == Transcript("HI", (Word("HI", 0.2, 0.24, 0.9),), 1.5)


def test_words_may_be_left_out() -> None:
    assert Transcript.from_dict({"text": "HI", "duration_sec": 1.5}) == Transcript("HI", (), 1.5)


def test_alternatives_and_parts() -> None:
    one, other = (Alternative(text, (Word(text, 0.5, 0.75, 0.5),), -1.25) for text in ("ONE", "WON"))
    parts = (Part((one, other)), Part((Alternative("", (), -0.5),)))
    for several in ({"alternatives": (one, other)}, {"parts": parts}):
        transcript = Transcript("ONE", one.words, 2.0, **several)
        fields = json.loads(json.dumps(transcript.to_dict()))
        assert list(fields) == ["text", "words", "duration_sec", *several]
        assert Transcript.from_dict(fields) == transcript
    assert fields["parts"][0]["alternatives"][1] == {
        "text": "WON",
        "score": -1.25,
        "words": [{"word": "WON", "start_sec": 0.5, "end_sec": 0.75, "confidence": 0.5}],
    }
    assert [(part["start_sec"], part["end_sec"]) for part in fields["parts"]] == [(0.5, 0.75), (0.0, 0.0)]


def test_warnings_and_places_are_there_where_they_are() -> None:
    words = (PlacedWord("HI", 0.2, 0.24, 0.9, 2, None), PlacedWord("YOU", 0.4, 0.44, 0.9, 1, 3))
    transcript = Transcript("HI YOU", words, 1.5, ("cut short",))
    fields = transcript.to_dict()
    assert list(fields) == ["text", "words", "duration_sec", "warnings"]
    assert fields["warnings"] == ["cut short"]
    assert fields["words"][0] == {
        "word": "HI", "start_sec": 0.2, "end_sec": 0.24, "confidence": 0.9, "channel": 2
    }  # fmt: skip
    assert (fields["words"][1]["channel"], fields["words"][1]["track"]) == (1, 3)
    assert Transcript.from_dict(json.loads(json.dumps(fields))) == transcript
