"""Spelling of tokens as text, and as words with times and confidences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from moulin.bundle.tokens import TokenTable, WordSpan
from moulin.decoding.found import Hypothesis
from moulin.engine.batched_word_times import word_spans_of_all
from moulin.engine.word_times import Sound, Span, word_spans
from moulin.transcript import Alternative, Transcript, Word

Spell = Callable[[Hypothesis], tuple[Word, ...]]

_MANY_WORDS = 96
"""From so many words on they are timed in less time on arrays."""


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
    return _transcript(tokens, hypothesis, words(hypothesis), words, duration_sec, nbest)


def spell_all(
    tokens: TokenTable,
    hypotheses: Sequence[Hypothesis],
    *,
    frame_sec: float,
    durations_sec: Sequence[float],
    levels: Sequence[bytes],
    nbest: Sequence[int],
) -> list[Transcript]:
    """The transcripts of N whole utterances, each as `spell` makes it with the `levels` of its `Sound`."""
    spelt = [tokens.words(hypothesis.tokens) for hypothesis in hypotheses]
    emitted = list(map(_emitted, hypotheses, spelt))
    if sum(map(len, emitted)) < _MANY_WORDS:
        spans = [word_spans(one, Sound(level)) for one, level in zip(emitted, levels, strict=True)]
    else:
        spans = word_spans_of_all(emitted, levels)
    transcripts = []
    for row, hypothesis in enumerate(hypotheses):
        duration_sec, sound = durations_sec[row], Sound(levels[row])
        words = _timed(hypothesis, spelt[row], spans[row], frame_sec=frame_sec, duration_sec=duration_sec)
        words_of = partial(spell_words, tokens, frame_sec=frame_sec, duration_sec=duration_sec, sound=sound)
        transcripts.append(_transcript(tokens, hypothesis, words, words_of, duration_sec, nbest[row]))
    return transcripts


def alternatives(tokens: TokenTable, ranked: Iterable[Hypothesis], nbest: int, words: Spell) -> tuple[Alternative, ...]:
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
    spelt = tokens.words(hypothesis.tokens)
    emitted = _emitted(hypothesis, spelt)
    spans = [(first, last + 1) for first, last in emitted] if sound is None else word_spans(emitted, sound)
    return _timed(hypothesis, spelt, spans, frame_sec=frame_sec, duration_sec=duration_sec)


def _emitted(hypothesis: Hypothesis, spelt: Sequence[WordSpan]) -> list[Span]:
    """The frames of the first and the last token of each word."""
    frames = hypothesis.frames
    return [(frames[first], frames[last]) for _, first, last in spelt]


def _timed(
    hypothesis: Hypothesis, spelt: Sequence[WordSpan], spans: Sequence[Span], *, frame_sec: float, duration_sec: float
) -> tuple[Word, ...]:
    log_probs = hypothesis.log_probs
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


def _transcript(
    tokens: TokenTable, best: Hypothesis, words: tuple[Word, ...], words_of: Spell, duration_sec: float, nbest: int
) -> Transcript:
    return Transcript(
        text=tokens.text(best.tokens),
        words=words,
        duration_sec=round(duration_sec, 3),
        alternatives=alternatives(tokens, (best, *best.others), nbest, words_of) if nbest > 1 else (),
    )
