"""WAV files as programs write them into pipes, split at any byte."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from moulin.audio.live_wav import LiveWav, UnknownWavError
from moulin.audio.pcm import RawFormat, pcm_to_float
from moulin.errors import AudioError

SAMPLES = np.random.default_rng(0).integers(-9000, 9000, 501).astype("<i2")


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    declared = len(content) if size is None else size
    return name + struct.pack("<I", declared) + content + b"\0" * (len(content) % 2)


def fmt(tag: int = 1, channels: int = 1, rate: int = 16000, width: int = 2, extra: bytes = b"") -> bytes:
    frame = channels * width
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, 8 * width) + extra)


def wav(*chunks: bytes, name: bytes = b"RIFF") -> bytes:
    return name + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + b"".join(chunks)


LIST = chunk(b"LIST", b"INFOISFT\x0d\0\0\0Lavf60.3.100\0")
AUDIO = SAMPLES.tobytes()


def heard(file: bytes, every: int = 1 << 20) -> bytes:
    reader, found = LiveWav(), b""
    for begin in range(0, len(file), every):
        for format, data in reader.accept(file[begin : begin + every]):
            assert data
            assert len(data) % format.frame_bytes == 0
            found += data
    return found


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFE, len(AUDIO)])
@pytest.mark.parametrize("every", [1, 2, 3, 7, 45, 1001, 1 << 20])
def test_sizes_that_programs_write(size: int, every: int) -> None:
    """ffmpeg writes a LIST chunk and 0xFFFFFFFF, sox 0x7FFFF000, others 0."""
    assert heard(wav(fmt(), LIST, chunk(b"data", AUDIO, size)), every) == AUDIO


@given(st.lists(st.integers(1, 400), max_size=30))
def test_split_anywhere(lengths: list[int]) -> None:
    file, reader, found, at = wav(fmt(channels=3), LIST, chunk(b"data", AUDIO, 0)), LiveWav(), b"", 0
    for length in [*lengths, len(AUDIO) + 200]:
        found += b"".join(data for _, data in reader.accept(file[at : at + length]))
        at += length
    assert found == AUDIO


@pytest.mark.parametrize("every", [1, 5, 1 << 20])
def test_what_is_behind_the_data(every: int) -> None:
    odd = AUDIO + b"\1"
    behind = chunk(b"LIST", b"INFO") + chunk(b"id3 ", b"ID3")
    assert heard(wav(fmt(), chunk(b"data", AUDIO), behind), every) == AUDIO
    assert heard(wav(fmt(width=1), chunk(b"data", odd), behind), every) == odd
    assert heard(wav(fmt(), chunk(b"data", AUDIO)) + wav(fmt(), LIST, chunk(b"data", AUDIO)), every) == 2 * AUDIO
    uncounted = wav(fmt(), chunk(b"data", AUDIO, 400))
    assert heard(uncounted, every) == AUDIO, "the writer's size is too small"


def test_a_file_of_more_than_4_gb() -> None:
    counted = chunk(b"ds64", struct.pack("<QQQI", 0, len(AUDIO), 0, 0))
    file = wav(counted, fmt(), chunk(b"data", AUDIO, 0xFFFFFFFF), chunk(b"LIST", b"INFO"), name=b"RF64")
    assert heard(file, 3) == AUDIO


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_formats(subtype: str, form: str, channels: int) -> None:
    if form == "RF64" and subtype in ("ULAW", "ALAW"):
        pytest.skip("libsndfile does not write it")
    samples = np.random.default_rng(1).uniform(-0.9, 0.9, (200, channels))
    file = io.BytesIO()
    soundfile.write(file, samples, 22_050, format=form, subtype=subtype)
    reader, data = LiveWav(), b""
    for byte in file.getvalue():
        for _, piece in reader.accept(bytes([byte])):
            data += piece
    assert reader.format is not None
    assert (reader.format.sample_rate, reader.format.channels) == (22_050, channels)
    expected, _ = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32", always_2d=True)
    found = pcm_to_float(data, reader.format.encoding).reshape(-1, channels)
    assert np.allclose(found, expected, atol=1e-6)


def test_what_is_no_pcm() -> None:
    with pytest.raises(UnknownWavError, match="format 2"):
        heard(wav(fmt(tag=2), chunk(b"data", AUDIO)))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (wav(chunk(b"data", AUDIO)), "no format"),
        (wav(fmt(channels=0)), "0 channels"),
        (wav(fmt(rate=0)), "at 0 Hz"),
        (wav(chunk(b"fmt ", b"\1\0\1\0")), "at least 16 bytes, got 4"),
        (wav(chunk(b"fmt ", b"", 2**31)), "has 2147483648 bytes"),
        (wav(fmt(), b"\0\1\2\3\4\5\6\7"), "expected the name of a chunk"),
    ],
)
def test_headers_that_make_no_sense(file: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        heard(file)


def test_a_header_alone() -> None:
    reader = LiveWav()
    assert list(reader.accept(wav(fmt())[:30])) == []
    assert reader.format is None
    assert list(reader.accept(wav(fmt())[30:])) == []
    assert reader.format == RawFormat("s16le", 16000, 1)
