from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from moulin.audio.fbank import PADDING_VALUE, Fbank, FbankOptions, pad_features
from moulin.errors import AudioError, OptionsError

from .reference_fbank import reference_fbank

# float32 against float64: the logarithm of an almost empty filter carries the error of the float32 FFT.
TOLERANCE = 5e-4
LENGTHS = [0, 1, 79, 80, 81, 159, 160, 161, 239, 240, 399, 400, 401, 1600, 16000, 16001, 100003]


def speechlike(num_samples: int, seed: int = 0) -> NDArray[np.float32]:
    """Harmonics of a gliding tone and some noise: energy in every filter, different at every time."""
    time = np.arange(num_samples) / 16000
    phase = 2 * np.pi * (120 * time + 15 * np.sin(3 * time))
    voice = sum(np.sin(k * phase) / k for k in range(1, 40)) * (0.5 + 0.4 * np.sin(7 * time))
    noise = np.random.default_rng(seed).standard_normal(num_samples)
    samples: NDArray[np.float64] = 0.2 * voice + 0.01 * noise + 0.02
    return samples.astype(np.float32)


@pytest.mark.parametrize("num_samples", LENGTHS)
def test_equals_kaldis_definition(num_samples: int) -> None:
    samples = speechlike(num_samples)
    features = Fbank()(samples)
    assert features.dtype == np.float32
    assert features.shape == ((num_samples + 80) // 160, 80)
    np.testing.assert_allclose(features, reference_fbank(samples), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("num_samples", LENGTHS)
def test_num_frames_predicts_the_shape(num_samples: int) -> None:
    fbank = Fbank()
    assert fbank.num_frames(num_samples) == len(fbank(speechlike(num_samples)))


def test_digital_silence_is_the_floor_not_minus_infinity() -> None:
    np.testing.assert_allclose(Fbank()(np.zeros(1600, np.float32)), np.log(np.finfo(np.float32).eps), rtol=1e-6)


def test_high_freq_is_7600_not_8000() -> None:
    """sherpa's recipes use 8000 Hz, which differs from 7600 by far more than the tolerance."""
    samples = speechlike(16000)
    features = Fbank()(samples)
    assert np.abs(features - reference_fbank(samples, high_hz=8000)).max() > 1000 * TOLERANCE
    at_8000 = Fbank(FbankOptions(high_freq=0.0))(samples)
    np.testing.assert_allclose(at_8000, reference_fbank(samples, high_hz=8000), atol=TOLERANCE, rtol=0)


def test_snip_edges_is_false() -> None:
    """With snip_edges a second of audio has 98 frames, each of them 120 samples later."""
    samples = speechlike(16000)
    features, snipped = Fbank()(samples), reference_fbank(samples, snip_edges=True)
    assert (len(features), len(snipped)) == (100, 98)
    assert np.abs(features[:98] - snipped).max() > 1000 * TOLERANCE


def test_is_deterministic_because_it_does_not_dither() -> None:
    samples, fbank = speechlike(8000), Fbank()
    np.testing.assert_array_equal(fbank(samples), fbank(samples))


def test_one_object_serves_several_threads() -> None:
    fbank = Fbank()
    waveforms = [speechlike(3000 + 777 * i, seed=i) for i in range(12)]
    expected = [fbank(waveform) for waveform in waveforms]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for features, alone in zip(pool.map(fbank, waveforms), expected, strict=True):
                np.testing.assert_array_equal(features, alone)


def test_the_result_belongs_to_the_caller() -> None:
    features = Fbank()(speechlike(1600))
    features += 1
    assert features.flags.c_contiguous


def test_takes_int16_and_strided_and_read_only_input() -> None:
    fbank, samples = Fbank(), np.round(speechlike(3200) * 20000).astype(np.int16)
    floats = samples.astype(np.float32) / 32768
    np.testing.assert_array_equal(fbank(samples), fbank(floats))
    strided = np.stack([floats, floats], axis=1)[:, 0]
    strided.flags.writeable = False
    np.testing.assert_array_equal(fbank(strided), fbank(floats))


def test_refuses_what_is_not_a_waveform() -> None:
    with pytest.raises(AudioError, match="got nan at sample 3"):
        Fbank()(np.array([0, 0, 0, np.nan], np.float32))
    with pytest.raises(AudioError, match="peak of 20000"):
        Fbank()(np.full(400, 20000, np.float32))


def test_other_sizes_come_from_the_options() -> None:
    fbank = Fbank(FbankOptions(num_mel_bins=23, sample_rate=8000, high_freq=-200.0))
    assert fbank(speechlike(8000)).shape == (100, 23)
    assert fbank.num_frames(8000) == 100


@pytest.mark.parametrize(
    "options",
    [
        {"low_freq": 5000.0, "high_freq": 4000.0},
        {"high_freq": 9000.0},
        {"high_freq": -8000.0},
        {"num_mel_bins": 0},
        {"num_mel_bins": 400},
        {"frame_shift_ms": 0.0},
        {"frame_shift_ms": 30.0},
    ],
)
def test_refuses_impossible_options(options: dict[str, float]) -> None:
    with pytest.raises(OptionsError):
        Fbank(FbankOptions(**options))  # type: ignore[arg-type]


def test_pad_features() -> None:
    one, three = np.ones((1, 5), np.float32), np.full((3, 5), 3, np.float32)
    batch, lengths = pad_features([one, three])
    assert batch.dtype == np.float32
    assert lengths.dtype == np.int64
    assert lengths.tolist() == [1, 3]
    np.testing.assert_array_equal(batch[0, :1], one)
    np.testing.assert_array_equal(batch[0, 1:], np.float32(PADDING_VALUE))
    np.testing.assert_array_equal(batch[1], three)


def test_padding_value_is_lhotses() -> None:
    assert pytest.approx(np.log(1e-10), rel=1e-15) == PADDING_VALUE


def test_pad_features_lengthens_what_is_too_short_for_an_encoder() -> None:
    batch, lengths = pad_features([np.ones((n, 2), np.float32) for n in (0, 4, 11)], min_frames=9)
    assert lengths.tolist() == [9, 9, 11]
    assert batch.shape == (3, 11, 2)
    assert (batch == 1).sum(axis=(1, 2)).tolist() == [0, 8, 22]


def test_pad_features_refuses_an_empty_batch_and_mixed_sizes() -> None:
    with pytest.raises(AudioError, match="at least one"):
        pad_features([])
    with pytest.raises(AudioError, match=r"\[T, 3\], got \[2, 4\] in utterance 1"):
        pad_features([np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)])
