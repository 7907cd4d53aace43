"""Audio with and without headers, judged by libsndfile."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import soundfile

from moulin.arrays import Floats
from moulin.errors import MoulinError
from moulin.gateway.riva.audio import StreamAudio, wav_header
from moulin.gateway.riva.messages import RecognitionConfig
from moulin.gateway.riva.wish import Wish

ENCODINGS = {"PCM_16": 1, "ULAW": 3, "ALAW": 20}


def wish(**fields: Any) -> Wish:
    return Wish.of(RecognitionConfig(**fields))


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


@pytest.mark.parametrize("subtype", ENCODINGS)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_recording_without_a_header_becomes_a_wav_file(subtype: str, channels: int) -> None:
    raw = coded(tone(channels), subtype, 8000)
    header = wav_header(raw, wish(encoding=ENCODINGS[subtype], sample_rate_hertz=8000, audio_channel_count=channels))
    found, rate = soundfile.read(io.BytesIO(header + raw), dtype="float32", always_2d=True)
    expected, _ = soundfile.read(
        io.BytesIO(coded(tone(channels), subtype, 8000, "WAV")), dtype="float32", always_2d=True
    )
    assert rate == 8000
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("form", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "OPUS")])
def test_a_recording_with_a_header_is_as_it_is(form: str, subtype: str) -> None:
    assert wav_header(coded(tone(), subtype, form=form), wish()) == b""


@pytest.mark.parametrize("form", ["RAW", "WAV"])
@pytest.mark.parametrize("subtype", ENCODINGS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("step", [1, 7, 3200])
def test_streams(form: str, subtype: str, channels: int, step: int) -> None:
    """In pieces of any length; of a WAV file the configuration says nothing."""
    data = coded(tone(channels), subtype, form=form)
    given = {"encoding": ENCODINGS[subtype], "sample_rate_hertz": 16_000, "audio_channel_count": channels}
    audio = StreamAudio(wish(**given) if form == "RAW" else wish())
    empty = [audio.is_empty]
    pieces = [p for a, b in pairwise([*range(0, len(data), step), len(data)]) for p in audio.accept(data[a:b])]
    empty.append(audio.is_empty)
    rest = audio.flush()
    assert rest is not None
    pieces.append(rest)
    assert [*empty, audio.is_empty] == [True, False, True]
    expected, _ = soundfile.read(
        io.BytesIO(coded(tone(channels), subtype, form="WAV")), dtype="float32", always_2d=True
    )
    np.testing.assert_allclose(np.concatenate(pieces), expected.mean(axis=1), atol=1e-6)


def test_less_than_a_header_is_audio_too() -> None:
    audio = StreamAudio(wish(sample_rate_hertz=16_000))
    assert audio.accept(b"\0\1") == []
    assert not audio.is_empty
    rest = audio.flush()
    assert rest is not None
    assert len(rest) == 1


@pytest.mark.parametrize(("form", "subtype"), [("FLAC", "PCM_16"), ("OGG", "OPUS")])
def test_files_that_no_stream_can_hold(form: str, subtype: str) -> None:
    audio = StreamAudio(wish(encoding=1, sample_rate_hertz=16_000))
    with pytest.raises(MoulinError, match=r"Expected samples .*, got an? (FLAC|Ogg)"):
        audio.accept(coded(tone(), subtype, form=form))


def test_compressed_wav_is_refused() -> None:
    with pytest.raises(MoulinError, match="Expected PCM, mu-law or A-law in a WAV file, got format 17"):
        StreamAudio(wish()).accept(coded(tone(), "IMA_ADPCM", form="WAV"))
