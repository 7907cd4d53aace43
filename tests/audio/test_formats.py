"""The demo's clips in the formats that people have: the words of the WAV, at its times."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import soxr

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.demo.files import DEMO_MODEL
from moulin.engine.recognizer import Recognizer
from moulin.models.open_recognizer import open_recognizer
from moulin.transcript import Transcript
from tests.conftest import Recording

from .media import Track, media, shifts_ms, wav

Encode = Callable[[Floats], bytes]


def by_libsndfile(format: str, subtype: str, rate: int = 16000, signs: tuple[float, ...] = (1.0,)) -> Encode:
    def encode(samples: Floats) -> bytes:
        wide = soxr.resample(samples, 16000, rate, quality="VHQ").astype(np.float32)
        return wav(*(wide * np.float32(sign) for sign in signs), rate=rate, format=format, subtype=subtype)

    return encode


def by_ffmpeg(container: str, codec: str, rate: int = 48000, channels: int = 1, *, with_video: bool = False) -> Encode:
    def encode(samples: Floats) -> bytes:
        stacked = samples if channels == 1 else np.stack([samples] * channels, axis=1)
        return media(container, codec, Track(stacked), rate=rate, with_video=with_video)

    return encode


FORMATS = {
    "wav u8": by_libsndfile("WAV", "PCM_U8"),
    "wav 24 bits": by_libsndfile("WAV", "PCM_24", 48000),
    "wav 32 bits": by_libsndfile("WAV", "PCM_32", 44100),
    "wav float": by_libsndfile("WAV", "FLOAT", 22050, (1.0, 1.0)),
    "wav double": by_libsndfile("WAV", "DOUBLE", 96000),
    "wav mu-law 8 kHz": by_libsndfile("WAV", "ULAW", 8000),
    "wav A-law 8 kHz stereo": by_libsndfile("WAV", "ALAW", 8000, (1.0, 1.0)),
    "wav IMA ADPCM": by_libsndfile("WAV", "IMA_ADPCM"),
    "wav MS ADPCM": by_libsndfile("WAV", "MS_ADPCM", 22050),
    "wav GSM": by_libsndfile("WAV", "GSM610", 8000),
    "wav 5.1": by_libsndfile("WAVEX", "PCM_16", 48000, (1.0,) * 6),
    "wav inverted": by_libsndfile("WAV", "PCM_16", 44100, (1.0, -1.0)),
    "wav four, two inverted": by_libsndfile("WAV", "PCM_16", 16000, (1.0, -1.0, 1.0, -1.0)),
    "wav one silent": by_libsndfile("WAV", "PCM_16", 16000, (0.0, 1.0)),
    "rf64": by_libsndfile("RF64", "PCM_16", 32000),
    "w64": by_libsndfile("W64", "PCM_16"),
    "aiff": by_libsndfile("AIFF", "PCM_16", 44100, (1.0, 1.0)),
    "au": by_libsndfile("AU", "ULAW", 8000),
    "caf": by_libsndfile("CAF", "ALAC_16"),
    "flac": by_libsndfile("FLAC", "PCM_16"),
    "flac 48 kHz stereo": by_libsndfile("FLAC", "PCM_24", 48000, (1.0, 1.0)),
    "vorbis": by_libsndfile("OGG", "VORBIS", 44100, (1.0, 1.0)),
    "opus": by_ffmpeg("ogg", "libopus"),
    "opus of a phone": by_libsndfile("OGG", "OPUS", 16000),
    "mp3": by_ffmpeg("mp3", "libmp3lame", 44100, 2),
    "mp3 16 kHz": by_libsndfile("MP3", "MPEG_LAYER_III"),
    "mp2": by_ffmpeg("mp2", "mp2"),
    "m4a": by_ffmpeg("ipod", "aac", 44100, 2),
    "aac": by_ffmpeg("adts", "aac"),
    "3gp": by_ffmpeg("3gp", "aac", 16000),
    "mp4 with a picture": by_ffmpeg("mp4", "aac", 48000, 2, with_video=True),
    "mov": by_ffmpeg("mov", "pcm_s16le", 48000, 2, with_video=True),
    "mkv": by_ffmpeg("matroska", "aac", 48000, 6, with_video=True),
    "webm": by_ffmpeg("webm", "libopus"),
    "mpeg-ts": by_ffmpeg("mpegts", "aac", with_video=True),
    "avi": by_ffmpeg("avi", "libmp3lame", with_video=True),
    "wma": by_ffmpeg("asf", "wmav2", 44100, 2),
    "flash": by_ffmpeg("flv", "aac", 44100),
    "ac3": by_ffmpeg("ac3", "ac3"),
    "wavpack": by_ffmpeg("wv", "wavpack"),
    "tta": by_ffmpeg("tta", "tta"),
}


ALLOWED = {"wav u8": 4, "wav GSM": 2}
"""More errors than one word, where a format loses more than the model bears: quiet speech of 8 bits is 15 dB above its
noise; GSM has 13 kbit a second."""

LATE_MS = {"wma": 46.0, "mpeg-ts": 22.0, "avi": 24.0}
"""How late the sound is, where the file does not tell the encoder's delay; in all others by less than 1 ms."""


@pytest.fixture(scope="module")
def recognizer() -> Iterator[Recognizer]:
    with open_recognizer(DEMO_MODEL) as opened:
        yield opened


@pytest.mark.parametrize(("count", "compared"), [(3, 9), pytest.param(14, 60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FORMATS)
def test_the_words_and_times_of_the_wav(
    name: str, count: int, compared: int, recognizer: Recognizer, recordings: list[Recording]
) -> None:
    kaldialign = pytest.importorskip("kaldialign")
    recordings = recordings[:count]
    decoded = [read_audio(FORMATS[name](recording.waveform)) for recording in recordings]
    found = [one for one in recognizer.transcribe(decoded) if isinstance(one, Transcript)]
    assert len(found) == len(recordings)
    for recording, samples in zip(recordings, decoded, strict=True):
        # The median: a faint place may be no longer like that of the WAV.
        assert np.median(np.abs(shifts_ms(samples, recording.waveform))) < LATE_MS.get(name, 1.0)

    def errors(heard: list[str]) -> int:
        said = [recording.said for recording in recordings]
        return sum(kaldialign.edit_distance(a.split(), b.split())["total"] for a, b in zip(said, heard, strict=True))

    of_wav = errors([recording.text for recording in recordings])
    shifts = [
        there.start_sec - here.start_sec
        for recording, one in zip(recordings, found, strict=True)
        if one.text == recording.text
        for here, there in zip(recording.heard.words, one.words, strict=True)
    ]
    assert len(shifts) > compared
    assert errors([one.text for one in found]) <= of_wav + ALLOWED.get(name, 1)
    assert np.abs(np.mean(shifts)) <= 0.06
