"""Transcripts of pieces put together."""

from __future__ import annotations

import numpy as np

from moulin.long_audio.cutter import Piece
from moulin.long_audio.joined_transcript import JoinedTranscript
from moulin.transcript import Transcript, Word


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
