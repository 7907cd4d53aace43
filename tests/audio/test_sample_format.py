"""Samples that are something else than they are said to be, and those that are what they are."""

from __future__ import annotations

import numpy as np
import pytest
import soxr

from moulin.arrays import Floats
from moulin.audio.pcm import PcmEncoding, RawFormat
from moulin.audio.recording import Recording
from moulin.audio.sample_format import format_doubt
from tests.conftest import Recording as Clip

RAW: tuple[PcmEncoding, ...] = ("f32le", "s16le", "s16be", "s32le", "s24le", "u8", "f64le")


def encoded(samples: Floats, encoding: PcmEncoding) -> bytes:
    if encoding in ("f32le", "f64le"):
        return bytes(samples.astype("<f4" if encoding == "f32le" else "<f8").tobytes())
    if encoding == "u8":
        return bytes(np.clip(np.rint(samples * 128) + 128, 0, 255).astype(np.uint8).tobytes())
    if encoding in ("s16le", "s16be"):
        whole = np.clip(np.rint(samples * 32768), -32768, 32767)
        return bytes(whole.astype("<i2" if encoding == "s16le" else ">i2").tobytes())
    wide = np.clip(np.rint(samples.astype(np.float64) * 2**31), -(2**31), 2**31 - 1).astype("<i4")
    return bytes(wide.tobytes() if encoding == "s32le" else wide.view(np.uint8).reshape(-1, 4)[:, 1:].tobytes())


@pytest.mark.parametrize("encoding", [one for one in RAW if one != "s16le"])
@pytest.mark.parametrize("level", [0.1, 1.0, 5.0])
def test_another_format_taken_for_int16_is_seen(recordings: list[Clip], encoding: PcmEncoding, level: float) -> None:
    if encoding == "u8" and level < 1:
        pytest.skip("8 bits have next to nothing of quiet speech")
    for clip in recordings[:6]:
        doubt = format_doubt(encoded(clip.waveform * np.float32(level), encoding), "s16le")
        assert doubt is not None
        assert f"seem to be {encoding}, not s16le" in doubt


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("level", [0.001, 0.03, 1.0, 20.0])
def test_speech_is_not_doubted(recordings: list[Clip], rate: int, level: float) -> None:
    for clip in recordings:
        samples = soxr.resample(clip.waveform, 16000, rate) * np.float32(level)
        assert format_doubt(encoded(np.clip(samples, -1, 1), "s16le"), "s16le") is None
        stereo = np.stack([samples, -samples], axis=1).reshape(-1)
        assert format_doubt(encoded(np.clip(stereo, -1, 1), "s16le"), "s16le", 2) is None


def sounds() -> dict[str, Floats]:
    random, seconds = np.random.default_rng(0), np.arange(64000) / 16000
    tones = {f"{hertz} Hz": 0.5 * np.sin(2 * np.pi * hertz * seconds) for hertz in (50, 440, 3000, 5500, 7000, 7900)}
    music = sum(0.1 * np.sin(2 * np.pi * hertz * seconds + k) for k, hertz in enumerate((110, 277, 660, 1320, 4000)))
    noise = random.uniform(-1, 1, 64000)
    made = {
        **tones,
        "music": music,
        "clipped music": np.clip(20 * music, -1, 1),
        "noise": noise,
        "gaussian noise": 0.2 * random.standard_normal(64000),
        "quiet noise": 1e-3 * noise,
        "hiss": np.diff(noise, prepend=0) / 2,
        "one bit": (random.integers(-1, 2, 64000)) / 32768,
        "silence": np.zeros(64000),
        "level": np.full(64000, 0.4),
        "full scale": np.sign(np.sin(2 * np.pi * 100 * seconds)),
        "clicks": (random.uniform(0, 1, 64000) < 1e-3) * 0.9,
    }
    return {name: np.clip(samples, -1, 32767 / 32768).astype(np.float32) for name, samples in made.items()}


@pytest.mark.parametrize("name", sounds())
@pytest.mark.parametrize("encoding", RAW)
def test_sounds_that_are_no_speech_are_not_doubted(name: str, encoding: PcmEncoding) -> None:
    assert format_doubt(encoded(sounds()[name], encoding), encoding) is None


@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 7999])
def test_too_little_to_tell(size: int) -> None:
    assert format_doubt(bytes(range(256))[: size % 256] * (size // 256 + 1), "s16le") is None


def test_a_raw_recording_warns(recordings: list[Clip]) -> None:
    data = encoded(recordings[0].waveform, "f32le")
    recording = Recording.of_pcm(data, RawFormat("s16le", 16000))
    assert sum(map(len, recording)) == 2 * len(recordings[0].waveform)  # type: ignore[arg-type]
    assert recording.warnings == ("the samples seem to be f32le, not s16le: they were heard as noise",)
    right = Recording.of_pcm(data, RawFormat("f32le", 16000))
    assert list(right)
    assert right.warnings == ()
