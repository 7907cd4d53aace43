from __future__ import annotations

import numpy as np
import pytest

from moulin.demo.files import demo_speech
from moulin.long_audio.voice_activity import FRAME_SAMPLES, VoiceActivity


@pytest.mark.parametrize("frames_a_call", [1, 7, 40])
def test_calls_of_any_length_give_the_same(frames_a_call: int) -> None:
    speech = demo_speech()[0]
    speech = speech[: len(speech) // FRAME_SAMPLES * FRAME_SAMPLES]
    whole = VoiceActivity()(speech)
    cut = VoiceActivity()
    step = frames_a_call * FRAME_SAMPLES
    parts = [cut(speech[begin : begin + step]) for begin in range(0, len(speech), step)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-4)


def test_speech_between_silences_is_found() -> None:
    speech = demo_speech()[0]
    speech = speech[: len(speech) // FRAME_SAMPLES * FRAME_SAMPLES]
    silence = np.zeros(31 * FRAME_SAMPLES, np.float32)
    probabilities = VoiceActivity()(np.concatenate([silence, speech, silence]))
    assert probabilities[:31].max() < 0.25
    assert probabilities[-20:].max() < 0.25
    assert np.mean(probabilities[31:-31] > 0.5) > 0.5
