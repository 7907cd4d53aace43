"""Chunks that make an encoder step possible, compared with the features themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import StreamingSpec
from moulin.errors import AudioError
from moulin.evaluate.streaming_clips import TAIL_SAMPLES, cut, steps
from moulin.streaming.window_layout import WindowLayout

DIGITS = StreamingSpec(window_frames=45, chunk_frames=32, states=())


@pytest.mark.parametrize(
    ("num_samples", "expected"),
    [(0, 0), (279, 0), (7319, 0), (7320, 1), (7320 + 5119, 1), (7320 + 5120, 2), (160_000, 30)],
)
def test_steps_of_digits_en_by_hand(num_samples: int, expected: int) -> None:
    """The 45th frame is centred at 44.5 shifts and reaches 200 samples further: 44 * 160 + 280."""
    assert steps(num_samples, 45, 32) == expected


@given(st.integers(0, 40_000), st.integers(5, 60), st.integers(1, 40))
def test_steps_agree_with_the_windows_of_the_features(num_samples: int, window: int, chunk: int) -> None:
    chunk = min(chunk, window)
    layout = WindowLayout.of(FbankOptions(), window, chunk)
    assert steps(num_samples, window, chunk) == layout.whole_windows(num_samples)


@given(st.integers(1, 40_000), st.sampled_from([(45, 32), (71, 64), (9, 4), (39, 32)]))
def test_the_tail_gives_the_peer_as_many_steps_as_moulin_takes(num_samples: int, windows: tuple[int, int]) -> None:
    window, chunk = windows
    ours = WindowLayout.of(FbankOptions(), window, chunk).all_windows(num_samples, TAIL_SAMPLES)
    clip = cut(np.zeros(num_samples, np.float32), "", StreamingSpec(window, chunk, ()), 5120)
    assert clip.peer_steps[-1] == ours
    # The last step waits for the end of the stream: frames are complete then without what would follow them.
    assert steps(num_samples + len(clip.tail), window + 1, chunk) == ours - 1


def test_chunks_cover_the_recording_and_only_those_with_a_step_in_both_systems_are_measured() -> None:
    samples = np.arange(5 * 5120 + 100, dtype=np.float32)
    clip = cut(samples, "ONE", DIGITS, 5120)
    np.testing.assert_array_equal(np.concatenate(clip.chunks), samples)
    assert clip.num_samples == len(samples)
    # 7320 samples for the first step, 5120 for each one more; 160 more for the peer's. The last chunk is the end.
    assert clip.measured == (False, True, True, True, True, False)
    assert clip.peer_steps[:-1] == (0, 1, 2, 3, 4)


def test_a_chunk_that_only_one_system_can_use_is_not_measured() -> None:
    """7400 samples are 45 frames: a step for moulin, one frame too few for the peer."""
    clip = cut(np.zeros(40_000, np.float32), "", DIGITS, 7400)
    assert clip.measured[0] is False
    assert clip.peer_steps[0] == 0


def test_small_chunks_are_mostly_not_measured() -> None:
    clip = cut(np.zeros(32_000, np.float32), "", DIGITS, 640)
    assert sum(clip.measured) <= steps(32_000, 45, 32)


def test_a_recording_without_samples_is_refused() -> None:
    with pytest.raises(AudioError):
        cut(np.zeros(0, np.float32), "", DIGITS, 5120)
