"""Word times of many utterances at once, against those of each by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.engine.batched_word_times import word_spans_of_all
from moulin.engine.word_times import Sound, Span, word_spans


def utterance(rng: np.random.Generator, *, words: int, frames: int) -> tuple[list[Span], bytes]:
    """Words of up to 40 frames of tokens, some emitted at one frame and some behind the audio, and bursts of sound."""
    firsts = np.sort(rng.integers(0, frames + 12, words))
    bounds = np.append(firsts, frames + 40)[1:]
    emitted = [
        (int(first), int(rng.integers(first, max(first, bound) + 1)))
        for first, bound in zip(firsts, bounds, strict=True)
    ]
    edges = np.sort(rng.integers(0, frames + 1, 8))
    levels = rng.integers(0, rng.integers(1, 256), frames)
    for begin, end in edges.reshape(-1, 2):
        levels[begin:end] = rng.integers(0, 12) + rng.integers(0, 244)
    return emitted, levels.astype(np.uint8).tobytes()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.tuples(st.integers(0, 12), st.integers(0, 120)), max_size=6))
def test_as_each_by_itself(seed: int, sizes: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(seed)
    made = [utterance(rng, words=words, frames=frames) for words, frames in sizes]
    expected = [word_spans(emitted, Sound(levels)) for emitted, levels in made]
    assert word_spans_of_all([emitted for emitted, _ in made], [levels for _, levels in made]) == expected


@pytest.mark.parametrize("level", [0, 80, 255])
def test_audio_that_says_nothing(level: int) -> None:
    """As loud as itself everywhere, or without a frame."""
    emitted = [[(3, 5), (5, 5), (30, 31)], [], [(0, 0)]]
    levels = [bytes([level]) * 40, b"", b""]
    expected = [word_spans(words, Sound(audio)) for words, audio in zip(emitted, levels, strict=True)]
    assert word_spans_of_all(emitted, levels) == expected


def test_nothing() -> None:
    assert word_spans_of_all([], []) == []
    assert word_spans_of_all([[], []], [b"", b"\1\2"]) == [[], []]
