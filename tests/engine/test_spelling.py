"""Words, their times and confidences, of hypotheses written by hand."""

from __future__ import annotations

import math

import pytest

from moulin.bundle.load import load_bundle
from moulin.decoding.found import Hypothesis
from moulin.demo.files import DEMO_MODEL
from moulin.engine.spelling import spell

TOKENS = load_bundle(DEMO_MODEL).tokens


def ids(*symbols: str) -> tuple[int, ...]:
    return tuple(TOKENS.symbols.index(symbol) for symbol in symbols)


def word_pieces() -> tuple[str, str, str]:
    """A piece that begins a word, one that goes on with it, and one that begins the next."""
    begins = [symbol for symbol in TOKENS.symbols if symbol.startswith("▁") and len(symbol) > 1]
    goes_on = next(symbol for symbol in TOKENS.symbols if symbol.isalpha())
    return begins[0], goes_on, begins[1]


def test_a_word_lasts_from_its_first_token_to_its_last() -> None:
    first, more, second = word_pieces()
    log_probs = (math.log(0.9), math.log(0.4), math.log(0.5))
    hypothesis = Hypothesis(ids(first, more, second), (10, 12, 20), log_probs, -3.0)
    transcript = spell(TOKENS, hypothesis, frame_sec=0.04, duration_sec=2.0004)
    one, two = transcript.words
    assert (one.word, two.word) == (first[1:] + more, second[1:])
    assert (one.start_sec, one.end_sec, two.start_sec, two.end_sec) == (0.4, 0.52, 0.8, 0.84)
    assert one.confidence == pytest.approx(math.sqrt(0.9 * 0.4), abs=1e-4)
    assert two.confidence == pytest.approx(0.5, abs=1e-4)
    assert transcript.text == f"{one.word} {two.word}"
    assert transcript.duration_sec == 2.0


def test_what_is_heard_in_the_silence_behind_the_audio_ends_with_the_audio() -> None:
    first, _, _ = word_pieces()
    hypothesis = Hypothesis(ids(first), (60,), (-20.0,), -20.0)
    [word] = spell(TOKENS, hypothesis, frame_sec=0.04, duration_sec=2.0).words
    assert (word.start_sec, word.end_sec) == (2.0, 2.0)
    assert word.confidence == 0.0001, "never zero"


def test_nothing_said() -> None:
    transcript = spell(TOKENS, Hypothesis((), (), (), 0.0), frame_sec=0.04, duration_sec=1.0)
    assert (transcript.text, transcript.words) == ("", ())
