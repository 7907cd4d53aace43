"""Transcripts of pieces put together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moulin.long_audio.cutter import Piece, Place
from moulin.long_audio.joined_transcript import JoinedTranscript
from moulin.transcript import Transcript, Word, place_of


def piece(start_sec: float) -> Piece:
    return Piece(round(start_sec * 16000), np.zeros(16000, np.float32))


def test_times_are_those_of_the_recording() -> None:
    joined = JoinedTranscript()
    assert joined.add(piece(0.5), Transcript("ONE", (Word("ONE", 0.04, 0.08, 0.5),), 1.0)) == "ONE"
    assert joined.add(piece(7.25), Transcript("", (), 1.0)) == ""
    assert joined.add(piece(7200.5), Transcript("TWO", (Word("TWO", 0.1, 0.14, 0.25),), 1.0)) == " TWO"
    assert joined.transcript(7300.12345) == Transcript(
        "ONE TWO", (Word("ONE", 0.54, 0.58, 0.5), Word("TWO", 7200.6, 7200.64, 0.25)), 7300.123
    )


def test_scripts_without_spaces_stay_without() -> None:
    joined = JoinedTranscript()
    joined.add(piece(0), Transcript("你好", (), 1.0))
    assert joined.add(piece(2), Transcript("世界", (), 1.0)) == "世界"
    assert joined.text == "你好世界"


def words(*spoken: tuple[str, float]) -> Transcript:
    return Transcript(
        " ".join(word for word, _ in spoken), tuple(Word(word, at, at + 0.04, 0.5) for word, at in spoken), 9.0
    )


def test_channels_are_joined_turn_by_turn() -> None:
    joined = JoinedTranscript()
    first, second = Place(1, None), Place(2, None)
    joined.add(replace(piece(0), place=first), words(("A", 0.0), ("B", 0.5), ("C", 4.0)))
    joined.add(replace(piece(10), place=first), words(("D", 0.0)))
    joined.add(replace(piece(0), place=second), words(("X", 0.2), ("Y", 0.6), ("Z", 5.0)))
    transcript = joined.transcript(12.0, ("of one channel",))
    assert transcript.text == "A B X Y C Z D"
    assert [(word.word, place_of(word)["channel"]) for word in transcript.words] == [
        *(("A", 1), ("B", 1), ("X", 2), ("Y", 2), ("C", 1), ("Z", 2), ("D", 1))
    ]
    assert transcript.words[-1].start_sec == 10.0
    assert transcript.warnings == ("of one channel",)


def test_a_server_without_words() -> None:
    joined = JoinedTranscript()
    joined.add(replace(piece(0), place=Place(1, 2)), Transcript("LATER", (), 1.0))
    joined.add(replace(piece(0), place=Place(2, 2)), Transcript("", (), 1.0))
    assert joined.transcript(1.0).text == "LATER"
