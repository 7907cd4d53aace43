"""From tokens to words with times and confidences."""

from __future__ import annotations

import math

from moulin.bundle.tokens import TokenTable
from moulin.decoding.network import Hypothesis
from moulin.transcript import Word


def spell_words(
    tokens: TokenTable, hypothesis: Hypothesis, *, frame_sec: float, duration_sec: float
) -> tuple[Word, ...]:
    """The words of `hypothesis`, whose encoder frames are `frame_sec` long.

    A token may be emitted in the silence behind the `duration_sec` seconds of audio, which the caller never sent: its
    times are the end of the audio.
    """

    def word(text: str, first: int, last: int) -> Word:
        log_probs = hypothesis.log_probs[first : last + 1]
        return Word(
            word=text,
            start_sec=round(min(hypothesis.frames[first] * frame_sec, duration_sec), 3),
            end_sec=round(min((hypothesis.frames[last] + 1) * frame_sec, duration_sec), 3),
            confidence=max(round(math.exp(sum(log_probs) / len(log_probs)), 4), 0.0001),
        )

    return tuple(word(span.word, span.first, span.last) for span in tokens.words(hypothesis.tokens))
