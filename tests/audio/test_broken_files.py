"""Files of every container, cut short, with other bytes, or with nothing behind the header: audio or AudioError."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from moulin.audio.decode import read_audio
from moulin.errors import AudioError
from tests.audio.test_decode import chirp, ffmpeg_bytes, sound_bytes

MAX_SEC = 60.0
_BY_LIBSNDFILE = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "caf": ("CAF", "ALAC_16"),
    "au": ("AU", "ULAW"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}
_BY_FFMPEG = {
    "m4a": ("ipod", "aac", 48000),
    "mp4": ("mp4", "aac", 44100),
    "mov": ("mov", "pcm_s16le", 16000),
    "fragmented": ("mpegts", "aac", 48000),
    "aac": ("adts", "aac", 16000),
    "webm": ("webm", "libopus", 48000),
    "mkv": ("matroska", "flac", 16000),
    "wma": ("asf", "wmav2", 44100),
    "avi": ("avi", "pcm_s16le", 16000),
    "flv": ("flv", "aac", 44100),
    "ac3": ("ac3", "ac3", 48000),
    "tta": ("tta", "tta", 16000),
    "wv": ("wv", "wavpack", 16000),
}
# Two seconds of noise floor in AMR, mode 0 (4.75 kbit/s, 12 bytes of speech after each frame's first): no package here
# encodes it.
_AMR = b"#!AMR\n" + (b"\x04" + bytes(range(1, 13))) * 100

CONTAINERS = [*_BY_LIBSNDFILE, *_BY_FFMPEG, "amr"]


@cache
def whole(container: str) -> bytes:
    if container == "amr":
        return _AMR
    if container in _BY_LIBSNDFILE:
        format, subtype = _BY_LIBSNDFILE[container]
        return bytes(sound_bytes(chirp(), 16000, format, subtype))
    muxer, codec, rate = _BY_FFMPEG[container]
    if codec in ("aac", "libopus", "ac3", "wmav2"):
        return ffmpeg_bytes(chirp(rate), muxer, codec, rate)
    return _lossless(muxer, codec, rate)


def _lossless(muxer: str, codec: str, rate: int) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=muxer) as output:
        stream = output.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        stream.format = {"wavpack": "s16p"}.get(codec, "s16")
        stream.codec_context.open()
        samples = (chirp(rate) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format=stream.format.name, layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        pieces = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.frame_size or None)
        for piece in [*pieces.resample(frame), *pieces.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.ERROR):
        yield


def audio_or_audio_error(content: bytes) -> np.ndarray[tuple[int], np.dtype[np.float32]] | AudioError:
    """Anything else that is raised fails the test, and so do samples that are none."""
    try:
        samples = read_audio(content, max_duration_sec=MAX_SEC, name="talk.audio")
    except AudioError as error:
        refusal = error
    else:
        assert samples.dtype == np.float32
        assert np.isfinite(samples).all()
        return samples
    assert refusal.message.startswith("talk.audio")
    assert "\n" not in refusal.message
    return refusal


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_whole_file_is_read(container: str) -> None:
    samples = audio_or_audio_error(whole(container))
    assert not isinstance(samples, AudioError), samples
    assert len(samples) >= 16_000


@pytest.mark.parametrize("width", [2, 7, 13, 16, 21, 32, 47])
def test_text_whose_lines_are_as_long_as_a_codecs_frames(width: int) -> None:
    """FFmpeg takes it for AMR without a header."""
    for line in (b"hello, this is a line of text, which repeats", b"<td>" + b" " * 50, b"0," * 30):
        assert isinstance(audio_or_audio_error((line[: width - 1] + b"\n") * 3000), AudioError)


@pytest.mark.parametrize("container", CONTAINERS)
def test_cut_short_anywhere(container: str) -> None:
    content = whole(container)
    header = range(1, min(len(content), 400), 7)
    for length in (*header, *range(400, len(content), max(1, len(content) // 40)), len(content) - 1):
        audio_or_audio_error(content[:length])


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("tail", [b"", bytes(5000), b"\xff" * 5000, b"text\n" * 1000], ids=["", "0", "ff", "text"])
def test_a_header_and_something_else(container: str, tail: bytes) -> None:
    for header in (12, 44, 64, 200, 512):
        audio_or_audio_error(whole(container)[:header] + tail)


@pytest.mark.parametrize("container", CONTAINERS)
def test_two_files_in_one(container: str) -> None:
    for other in ("wav", "m4a", "ogg"):
        audio_or_audio_error(whole(container)[:3000] + whole(other))


changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8)


@pytest.mark.parametrize("container", CONTAINERS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(changes=changes, in_header=st.booleans())
@example(changes=[(0.0, 0)], in_header=True)
def test_other_bytes(container: str, changes: list[tuple[float, int]], in_header: bool) -> None:
    content = bytearray(whole(container))
    reach = min(len(content), 300) if in_header else len(content)
    for place, byte in changes:
        content[int(place * reach)] = byte
    audio_or_audio_error(bytes(content))


def test_a_codec_that_nobody_knows() -> None:
    """PyAV 17 ended with a segmentation fault, PyAV 19 with a ValueError."""
    content = bytearray(whole("wav"))
    content[20:22] = b"\xfe\xca"  # the format tag
    refusal = audio_or_audio_error(bytes(content))
    assert isinstance(refusal, AudioError)
    assert "codec is not known" in refusal.message


def test_a_rate_of_almost_nothing(tmp_path: Path) -> None:
    """PyAV raised OSError for it."""
    content = bytes.fromhex(
        "636166660001000064657363000000000000002040cf4000000000006c636d000000000000000200000001"
        "00000001000000106368616e000041005159005700"
    )
    assert isinstance(audio_or_audio_error(content), AudioError)
    (tmp_path / "a.caf").write_bytes(content)
    with pytest.raises(AudioError):
        read_audio(tmp_path / "a.caf")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 11, 12, 44, 100, 4096, 100_000])
@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"a", b"\n"])
def test_the_same_byte_all_over(size: int, byte: bytes) -> None:
    result = audio_or_audio_error(byte * size)
    assert isinstance(result, AudioError)
