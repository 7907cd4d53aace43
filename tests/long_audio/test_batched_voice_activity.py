"""Speech probabilities of many recordings at once are those of the ONNX file, and so are the cuts."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moulin.arrays import Floats  # noqa: E402
from moulin.demo.files import demo_speech  # noqa: E402
from moulin.long_audio.batched_voice_activity import BatchedVoiceActivity  # noqa: E402
from moulin.long_audio.cut_points import cut_points  # noqa: E402
from moulin.long_audio.voice_activity import FRAME_SAMPLES, VoiceActivity  # noqa: E402

WITHIN = 1e-4


@pytest.fixture(scope="module")
def batched() -> BatchedVoiceActivity:
    return BatchedVoiceActivity()


@pytest.fixture(scope="module")
def long() -> Floats:
    """Three minutes: speech with gaps, then what is no speech, then speech on a constant level and in noise."""
    random = np.random.default_rng(5)
    speech = [part for one in demo_speech() for part in (one, np.zeros(random.integers(2000, 30_000), np.float32))]
    spoken = np.concatenate(speech)[: 60 * 16_000]
    noise = random.normal(0, 0.05, 30 * 16_000).astype(np.float32)
    tone = 0.3 * np.sin(np.arange(15 * 16_000) * 0.07).astype(np.float32)
    silence = np.zeros(30 * 16_000, np.float32)
    buried = spoken[: 20 * 16_000] + random.normal(0, 0.02, 20 * 16_000).astype(np.float32)
    parts = [spoken, noise, silence, spoken[: 10 * 16_000] + np.float32(0.2), tone, buried]
    joined: Floats = np.concatenate(parts).astype(np.float32).clip(-1, 1)
    return joined


def one_by_one(recording: Floats) -> Floats:
    return VoiceActivity()(np.pad(recording, (0, -len(recording) % FRAME_SAMPLES)))


def test_as_the_onnx_file_says(batched: BatchedVoiceActivity, long: Floats) -> None:
    recordings = [long, long[7 * 16_000 : 9 * 16_000 + 100], long[-40 * 16_000 :], long[:FRAME_SAMPLES]]
    for recording, found in zip(recordings, batched(recordings), strict=True):
        expected = one_by_one(recording)
        np.testing.assert_allclose(found, expected, atol=WITHIN)
        for max_sec in (30.0, 8.0):
            cuts = [cut_points(one, len(recording), max_sec) for one in (found, expected)]
            assert cuts[0] == cuts[1]


def test_neighbours_change_nothing(batched: BatchedVoiceActivity, long: Floats) -> None:
    alone = batched([long])[0]
    for others in ([long[::-1].copy()], [long[16_000:], long[: 5 * 16_000]]):
        np.testing.assert_array_equal(batched([*others, long])[-1], alone)


def test_16_bits(batched: BatchedVoiceActivity, long: Floats) -> None:
    samples = np.round(long * 32767).astype(np.int16)
    as_floats = samples.astype(np.float32) / 32768
    found = batched([samples, as_floats])
    np.testing.assert_array_equal(found[0], found[1])


def test_nothing(batched: BatchedVoiceActivity) -> None:
    assert batched([]) == []
    assert batched([np.zeros(0, np.float32)])[0].shape == (0,)
