"""Live audio with and without headers, mixed and by channels, judged by libsndfile."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from moulin.arrays import Floats
from moulin.audio.pcm import PcmEncoding, RawFormat
from moulin.audio.wav_header import wav_header
from moulin.errors import AudioError, MoulinError
from moulin.gateway.stream_audio import StreamAudio

ENCODINGS: dict[str, PcmEncoding] = {"PCM_16": "s16le", "ULAW": "mulaw", "ALAW": "alaw", "FLOAT": "f32le"}


def tone(channels: int = 1, rate: int = 16_000) -> Floats:
    times = np.arange(rate, dtype=np.float32)[:, None] / rate
    samples: Floats = (0.5 * np.sin(2 * np.pi * times * 300 * np.arange(1, channels + 1))).astype(np.float32)
    return samples


def coded(samples: Floats, subtype: str, rate: int = 16_000, form: str = "RAW") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def read(file: bytes) -> Floats:
    samples: Floats = soundfile.read(io.BytesIO(file), dtype="float32", always_2d=True)[0]
    return samples


def unknown() -> RawFormat:
    raise AudioError("no format")


@pytest.mark.parametrize("subtype", ENCODINGS)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_recording_without_a_header_becomes_a_wav_file(subtype: str, channels: int) -> None:
    raw = coded(tone(channels), subtype, 8000)
    file = wav_header(RawFormat(ENCODINGS[subtype], 8000, channels), len(raw)) + raw
    assert soundfile.info(io.BytesIO(file)).samplerate == 8000
    np.testing.assert_array_equal(read(file), read(coded(tone(channels), subtype, 8000, "WAV")))


@pytest.mark.parametrize("size", [2**32 - 40, 2**32, 2**40])
def test_a_header_of_more_than_it_can_say(size: int) -> None:
    assert len(wav_header(RawFormat("s16le", 8000), size)) == 44


@pytest.mark.parametrize("form", ["RAW", "WAV"])
@pytest.mark.parametrize("subtype", ENCODINGS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("step", [1, 7, 3200])
def test_streams(form: str, subtype: str, channels: int, step: int) -> None:
    """In pieces of any length; of a WAV file the client's words say nothing."""
    data = coded(tone(channels), subtype, form=form)
    raw = RawFormat(ENCODINGS[subtype], 16_000, channels)
    audio = StreamAudio((lambda: raw) if form == "RAW" else unknown)
    empty = [audio.is_empty()]
    pieces = [p for a, b in pairwise([*range(0, len(data), step), len(data)]) for _, p in audio.accept(data[a:b])]
    empty.append(audio.is_empty())
    rest = audio.flush()
    assert rest is not None
    assert [*empty, audio.is_empty()] == [True, False, True]
    expected = read(coded(tone(channels), subtype, form="WAV")).mean(axis=1)
    np.testing.assert_allclose(np.concatenate([*pieces, rest]), expected, atol=1e-6)
    assert audio.received_sec == 1.0


@pytest.mark.parametrize("form", ["RAW", "WAV"])
def test_channels_by_themselves(form: str) -> None:
    data = coded(tone(3), "PCM_16", form=form)
    audio = StreamAudio(lambda: RawFormat("s16le", 16_000, 3), channels=3)
    heard: list[list[Floats]] = [[], [], []]
    for at in range(0, len(data), 1001):
        for channel, piece in audio.accept(data[at : at + 1001]):
            heard[channel].append(piece)
    for channel in range(3):
        rest = audio.flush(channel)
        assert rest is not None
        found = np.concatenate([*heard[channel], rest])
        np.testing.assert_allclose(found, read(coded(tone(3), "PCM_16", form="WAV"))[:, channel], atol=1e-6)


def test_a_header_with_other_channels_than_were_said() -> None:
    audio = StreamAudio(lambda: RawFormat("s16le", 16_000, 2), channels=2)
    with pytest.raises(AudioError, match="Expected 2 channels, got a WAV header with 1"):
        audio.accept(coded(tone(1), "PCM_16", form="WAV"))


def test_less_than_a_header_is_audio_too() -> None:
    audio = StreamAudio(lambda: RawFormat("s16le", 16_000))
    assert audio.accept(b"\0\1") == []
    assert not audio.is_empty()
    rest = audio.flush()
    assert rest is not None
    assert len(rest) == 1


@pytest.mark.parametrize(("form", "subtype"), [("FLAC", "PCM_16"), ("OGG", "OPUS")])
def test_files_that_no_stream_can_hold(form: str, subtype: str) -> None:
    audio = StreamAudio(lambda: RawFormat("s16le", 16_000))
    with pytest.raises(MoulinError, match=r"Expected samples .*, got an? (FLAC|Ogg)"):
        audio.accept(coded(tone(), subtype, form=form))


def test_compressed_wav_is_refused() -> None:
    with pytest.raises(MoulinError, match="Expected PCM, mu-law or A-law in a WAV file, got format 17"):
        StreamAudio(unknown).accept(coded(tone(), "IMA_ADPCM", form="WAV"))
