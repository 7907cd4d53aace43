"""Samples that are something else than they are said to be, and those that are what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soxr

from moulin.arrays import Floats
from moulin.audio.live_input import LiveInput
from moulin.audio.pcm import PcmEncoding, RawFormat, pcm_to_float
from moulin.audio.recording import Recording
from moulin.audio.sample_format import format_doubt
from moulin.audio.wav_header import wav_header
from tests.conftest import Recording as Clip

BIG = {"f32be": "f32le", "f64be": "f64le", "s32be": "s32le", "s24be": "s24le"}
RAW: tuple[PcmEncoding, ...] = ("f32le", "s16le", "s16be", "s32le", "s24le", "u8", "f64le")


def encoded(samples: Floats, encoding: str) -> bytes:
    if encoding in BIG:
        width = int(encoding[1:3]) // 8
        little = np.frombuffer(encoded(samples, BIG[encoding]), np.uint8)
        return bytes(little.reshape(-1, width)[:, ::-1].tobytes())
    if encoding in ("mulaw", "alaw"):
        values = pcm_to_float(bytes(range(256)), encoding)  # type: ignore[arg-type]
        order = np.argsort(values)
        between = (values[order][1:] + values[order][:-1]) / 2
        return bytes(order[np.searchsorted(between, samples)].astype(np.uint8).tobytes())
    if encoding == "u16le":
        return bytes((np.clip(np.rint(samples * 32768), -32768, 32767) + 32768).astype("<u2").tobytes())
    if encoding == "s8":
        return bytes(np.clip(np.rint(samples * 128), -128, 127).astype(np.int8).tobytes())
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


MISTAKEN = [
    *[(sent, "s16le") for sent in ("u16le", "s24be", "s32be", "f32be", "f64be", "mulaw", "alaw")],
    *[("s16le", taken) for taken in ("s16be", "s24le", "s32le", "f32le", "f64le", "mulaw", "alaw", "s8")],
    *[("f32le", taken) for taken in ("s24le", "s32le", "f64le")],
    *[("f32be", taken) for taken in ("s32le", "f32le")],
    *[("s32be", taken) for taken in ("s32le", "f32le")],
    *[("u8", taken) for taken in ("s8", "mulaw")],
    *[("mulaw", taken) for taken in ("u8", "s8")],
]


@pytest.mark.parametrize(("sent", "taken"), MISTAKEN, ids=map("-as-".join, MISTAKEN))
def test_formats_that_are_mistaken_for_each_other(recordings: list[Clip], sent: str, taken: PcmEncoding) -> None:
    for clip in recordings[:6]:
        doubt = format_doubt(encoded(clip.waveform, sent), taken)
        assert doubt is not None
        assert f"seem to be {sent}, not {taken}" in doubt


def test_floats_on_the_scale_of_integers(recordings: list[Clip]) -> None:
    doubt = format_doubt(encoded(recordings[0].waveform * np.float32(32768), "f32le"), "s16le")
    assert doubt is not None
    assert "f32le up to 32768" in doubt


def test_two_equal_channels_taken_for_one(recordings: list[Clip]) -> None:
    twice = encoded(np.repeat(recordings[0].waveform, 2), "s16le")
    assert format_doubt(twice, "s16le") == (
        "every sample is there twice: the audio seems to have 2 channels, or half the rate"
    )
    assert format_doubt(twice, "s16le", 2) is None
    telephone = np.repeat(soxr.resample(np.diff(recordings[0].waveform), 16000, 8000), 2)
    assert format_doubt(encoded(telephone, "s16le"), "s16le") is None


@pytest.mark.parametrize("encoding", [*RAW, "s8", "mulaw", "alaw"])
@pytest.mark.parametrize("level", [3e-4, 0.003, 1.0, 30.0])
def test_speech_in_every_format_is_not_doubted(recordings: list[Clip], encoding: PcmEncoding, level: float) -> None:
    for clip in recordings[:6]:
        data = encoded(np.clip(clip.waveform * np.float32(level), -1, 1), encoding)
        assert format_doubt(data, encoding) is None
        assert format_doubt(encoded(np.clip(np.repeat(clip.waveform, 2), -1, 1), encoding), encoding, 2) is None


@pytest.mark.parametrize("hertz", [*range(150, 4000, 350), 3200, 3600, 3970])
@pytest.mark.parametrize("encoding", ["s16le", "u8", "mulaw", "alaw"])
def test_tones_of_a_telephone_are_not_doubted(hertz: int, encoding: PcmEncoding) -> None:
    tone = 0.3 * np.sin(2 * np.pi * hertz * np.arange(24000) / 8000)
    assert format_doubt(encoded(tone.astype(np.float32), encoding), encoding) is None
    stereo = np.stack([tone, 0.5 * np.roll(tone, 7)], axis=1).reshape(-1)
    assert format_doubt(encoded(stereo.astype(np.float32), encoding), encoding, 2) is None


@pytest.mark.parametrize("live", [False, True])
def test_a_wav_whose_header_says_another_format(recordings: list[Clip], tmp_path: Path, live: bool) -> None:
    data = encoded(recordings[0].waveform, "f32le")
    lying = wav_header(RawFormat("s16le", 16000), len(data)) + data
    if live:
        (tmp_path / "lying.wav").write_bytes(lying)
        with (tmp_path / "lying.wav").open("rb", buffering=0) as file:
            source = LiveInput(file.fileno(), "pipe")
            assert sum(map(len, source)) > 0
            source.close()
            warnings = source.warnings
    else:
        recording = Recording(lying)
        assert sum(map(len, recording)) > 0  # type: ignore[arg-type]
        warnings = recording.warnings
    assert warnings == ("the samples seem to be f32le, not s16le: they were heard as noise",)
