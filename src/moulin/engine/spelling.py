"""Spelling of tokens as text, and as words with times and confidences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

from moulin.bundle.tokens import TokenTable
from moulin.decoding.found import Hypothesis
from moulin.engine.word_times import Sound, word_spans
from moulin.transcript import Alternative, Transcript, Word


def spell(
    tokens: TokenTable,
    hypothesis: Hypothesis,
    *,
    frame_sec: float,
    duration_sec: float,
    sound: Sound | None = None,
    nbest: int = 1,
) -> Transcript:
    """The transcript of an utterance of `duration_sec`; encoder frames are `frame_sec` long. It has alternatives where
    `nbest` is above 1."""
    words = partial(spell_words, tokens, frame_sec=frame_sec, duration_sec=duration_sec, sound=sound)
    return Transcript(
        text=tokens.text(hypothesis.tokens),
        words=words(hypothesis),
        duration_sec=round(duration_sec, 3),
        alternatives=alternatives(tokens, (hypothesis, *hypothesis.others), nbest, words) if nbest > 1 else (),
    )


def alternatives(
    tokens: TokenTable, ranked: Iterable[Hypothesis], nbest: int, words: Callable[[Hypothesis], tuple[Word, ...]]
) -> tuple[Alternative, ...]:
    """The first `nbest` different texts of hypotheses that are `ranked`, each as the best of those with it has it."""
    found: dict[str, Hypothesis] = {}
    for hypothesis in ranked:
        if len(found) < nbest:
            found.setdefault(tokens.text(hypothesis.tokens), hypothesis)
    return tuple(Alternative(text, words(one), round(one.score, 4)) for text, one in found.items())


def spell_words(
    tokens: TokenTable,
    hypothesis: Hypothesis,
    *,
    frame_sec: float,
    duration_sec: float,
    sound: Sound | None = None,
) -> tuple[Word, ...]:
    """The words of `hypothesis`, whose encoder frames are `frame_sec` long.

    Their times are those of their sound, as `word_spans` finds them; without `sound` from the first token's frame to
    the last's.

    A token may be emitted in the silence behind the `duration_sec` seconds of audio, which the caller never sent: its
    times are the end of the audio.
    """

    frames, log_probs = hypothesis.frames, hypothesis.log_probs
    spelt = tokens.words(hypothesis.tokens)
    emitted = [(frames[first], frames[last]) for _, first, last in spelt]
    spans = [(first, last + 1) for first, last in emitted] if sound is None else word_spans(emitted, sound)
    words = []
    for (word, first, last), (begin, end) in zip(spelt, spans, strict=True):
        confidence = math.exp(sum(log_probs[first : last + 1]) / (last + 1 - first))
        words.append(
            Word(
                word,
                round(min(begin * frame_sec, duration_sec), 3),
                round(min(end * frame_sec, duration_sec), 3),
                max(round(confidence, 4), 0.0001),
            )
        )
    return tuple(words)
