"""Spelling of tokens as text, and as words with times and confidences."""

from __future__ import annotations

import math

from moulin.bundle.tokens import TokenTable
from moulin.decoding.found import Hypothesis
from moulin.transcript import Transcript, Word


def spell(tokens: TokenTable, hypothesis: Hypothesis, *, frame_sec: float, duration_sec: float) -> Transcript:
    """The transcript of an utterance of `duration_sec`; encoder frames are `frame_sec` long."""
    return Transcript(
        text=tokens.text(hypothesis.tokens),
        words=spell_words(tokens, hypothesis, frame_sec=frame_sec, duration_sec=duration_sec),
        duration_sec=round(duration_sec, 3),
    )


def spell_words(
    tokens: TokenTable, hypothesis: Hypothesis, *, frame_sec: float, duration_sec: float
) -> tuple[Word, ...]:
    """The words of `hypothesis`, whose encoder frames are `frame_sec` long.

    A token may be emitted in the silence behind the `duration_sec` seconds of audio, which the caller never sent: its
    times are the end of the audio.
    """

    frames, log_probs = hypothesis.frames, hypothesis.log_probs
    words = []
    for word, first, last in tokens.words(hypothesis.tokens):
        confidence = math.exp(sum(log_probs[first : last + 1]) / (last + 1 - first))
        start_sec, end_sec = frames[first] * frame_sec, (frames[last] + 1) * frame_sec
        words.append(
            Word(
                word,
                round(min(start_sec, duration_sec), 3),
                round(min(end_sec, duration_sec), 3),
                max(round(confidence, 4), 0.0001),
            )
        )
    return tuple(words)
