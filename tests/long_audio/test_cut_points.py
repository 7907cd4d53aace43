"""Cuts found at once are those that `Cutter` finds frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.arrays import Floats
from moulin.long_audio.cut_points import cut_points
from moulin.long_audio.voice_activity import FRAME_SAMPLES
from tests.long_audio.test_cutter import cut

SPAN = st.tuples(st.integers(1, 90), st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.6, 0.95]))


def by_cutter(probabilities: Floats, samples: int, max_sec: float, block: int = 16_000) -> list[tuple[int, int]]:
    audio = np.zeros((len(probabilities), FRAME_SAMPLES), np.float32)
    audio[:, 0] = probabilities
    pieces = cut(audio.ravel()[:samples], max_sec, block)
    return [(piece.start_samples, piece.start_samples + len(piece.waveform)) for piece in pieces]


@settings(max_examples=400, deadline=None)
@given(st.lists(SPAN, min_size=1, max_size=60), st.sampled_from([30.0, 10.0, 4.0, 1.0, 0.3]), st.integers(0, 511))
def test_as_frame_by_frame(spans: list[tuple[int, float]], max_sec: float, missing: int) -> None:
    probabilities = np.concatenate([np.full(frames, value, np.float32) for frames, value in spans])
    samples = len(probabilities) * FRAME_SAMPLES - missing
    assert cut_points(probabilities, samples, max_sec) == by_cutter(probabilities, samples, max_sec)


@pytest.mark.parametrize("seed", range(20))
def test_as_frame_by_frame_of_speech_that_hesitates(seed: int) -> None:
    random = np.random.default_rng(seed)
    walk = np.cumsum(random.normal(0, 0.08, 4000)) % 2
    probabilities = np.minimum(np.abs(walk), 1).astype(np.float32)
    samples = len(probabilities) * FRAME_SAMPLES
    for max_sec in (30.0, 7.0, 2.0):
        assert cut_points(probabilities, samples, max_sec) == by_cutter(probabilities, samples, max_sec)


def test_nothing_said() -> None:
    assert cut_points(np.zeros(100, np.float32), 100 * FRAME_SAMPLES, 30.0) == []
    assert cut_points(np.zeros(0, np.float32), 0, 30.0) == []
