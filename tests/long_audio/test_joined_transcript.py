"""Transcripts of pieces put together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moulin.long_audio.cutter import Piece, Place
from moulin.long_audio.joined_transcript import JoinedTranscript
from moulin.transcript import Alternative, Transcript, Word, place_of


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


def several(text: str, *others: str) -> Transcript:
    found = [Alternative(each, (Word(each, 0.1, 0.2, 0.5),), -float(n)) for n, each in enumerate((text, *others))]
    return Transcript(text, found[0].words, 1.0, alternatives=tuple(found))


def test_alternatives_of_a_recording_of_one_piece() -> None:
    joined = JoinedTranscript()
    joined.add(piece(2.0), several("ONE", "WON"))
    heard = joined.transcript(5.0)
    assert [(one.text, one.score) for one in heard.alternatives] == [("ONE", 0.0), ("WON", -1.0)]
    assert heard.alternatives[0].words == heard.words
    assert heard.words[0].start_sec == 2.1
    assert heard.parts == ()


def test_alternatives_of_several_pieces_are_each_its_own() -> None:
    joined = JoinedTranscript()
    joined.add(replace(piece(7.0), place=Place(1, None)), several("TWO", "TOO"))
    joined.add(replace(piece(2.0), place=Place(2, None)), several("ONE"))
    heard = joined.transcript(9.0)
    assert heard.alternatives == ()
    assert [[one.text for one in part.alternatives] for part in heard.parts] == [["ONE"], ["TWO", "TOO"]]
    assert [(part.start_sec, part.end_sec) for part in heard.parts] == [(2.1, 2.2), (7.1, 7.2)]
    assert [place_of(part.alternatives[0].words[0]) for part in heard.parts] == [{"channel": 2}, {"channel": 1}]
    again = JoinedTranscript()
    again.add(piece(1.0), heard)
    assert [part.start_sec for part in again.transcript(9.0).parts] == [3.1, 8.1], "of a stream's segments too"
