from __future__ import annotations

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.batched_fbank import BatchedFbank
from moulin.audio.batched_fbank import frames_of as frames_of_audio
from moulin.audio.decode import read_audio
from moulin.audio.fbank import Fbank, FbankOptions
from moulin.errors import OptionsError
from moulin.evaluate.manifest import demo_clips

from .kaldi_frames import features_of
from .reference_fbank import cut_frames, reference_fbank


def frames_of(samples: Floats) -> Floats:
    return cut_frames(samples.astype(np.float64), snip_edges=False).astype(np.float32)


def noise(count: int, length: int = 400, scale: float = 0.1) -> Floats:
    frames: Floats = scale * np.random.default_rng(0).standard_normal((count, length), dtype=np.float32)
    return frames


def test_speech_is_near_to_kaldis_definition() -> None:
    options = FbankOptions()
    batched = BatchedFbank(options)
    for clip in demo_clips()[:5]:
        samples = read_audio(clip.audio)
        frames, exact = frames_of(samples), reference_fbank(samples)
        ours, library = np.abs(batched(frames) - exact).max(), np.abs(features_of(frames, options) - exact).max()
        # The quietest filter of a loud frame is rounded at the scale of the loudest, how much depends on the order in
        # which a BLAS library adds up: 0.001 to 0.009 on two processors.
        assert library < 3e-3
        assert ours < 2e-2


@pytest.mark.parametrize(
    "options",
    [
        FbankOptions(),
        FbankOptions(high_freq=0.0),
        FbankOptions(num_mel_bins=100, low_freq=50.0),
        FbankOptions(num_mel_bins=23, sample_rate=8000, high_freq=-200.0),
        FbankOptions(frame_length_ms=32.0),
    ],
    ids=str,
)
def test_noise_is_that_of_the_library_for_all_options(options: FbankOptions) -> None:
    frames = noise(50, options.frame_length_samples)
    np.testing.assert_allclose(BatchedFbank(options)(frames), features_of(frames, options), atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        FbankOptions(),
        FbankOptions(frame_length_ms=32.0),
        FbankOptions(num_mel_bins=40, sample_rate=8000, high_freq=-200.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("length", [0, 1, 79, 80, 81, 119, 120, 159, 160, 239, 240, 399, 400, 401, 1000, 16_001])
def test_frames_of_whole_audio_are_those_of_the_library(length: int, options: FbankOptions) -> None:
    """Its ends are mirrored, several times where it is short; what repeats has filters without energy."""
    audio = 0.1 * np.random.default_rng(length).standard_normal(length, dtype=np.float32)
    features = BatchedFbank(options)(frames_of_audio(audio, options))
    np.testing.assert_allclose(features, Fbank(options)(audio), atol=5e-3, rtol=0)


def test_an_offset_is_removed() -> None:
    frames = noise(20)
    np.testing.assert_allclose(
        BatchedFbank(FbankOptions())(frames + 0.5), BatchedFbank(FbankOptions())(frames), atol=5e-3
    )


def test_silence_is_the_floor() -> None:
    features = BatchedFbank(FbankOptions())(np.zeros((3, 400), np.float32))
    np.testing.assert_array_equal(features, np.full((3, 80), np.log(np.finfo(np.float32).eps), np.float32))


def test_filters_without_a_frequency_are_refused() -> None:
    with pytest.raises(OptionsError, match="passes no frequency"):
        BatchedFbank(FbankOptions(num_mel_bins=500))
