"""The declared lengths of frames, against those that FFmpeg's encoders write."""

from __future__ import annotations

import io

import av
import pytest

from moulin.audio.coded_frames import is_cut
from tests.conftest import Recording

from .media import media


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("mp3", "libmp3lame", 16000), ("mp3", "libmp3lame", 44100), ("mp3", "libmp3lame", 8000), ("mp2", "mp2", 16000),
        ("mp2", "mp2", 44100), ("ac3", "ac3", 48000), ("ac3", "ac3", 44100), ("ac3", "ac3", 32000),
        ("eac3", "eac3", 44100),
    ],
)  # fmt: skip
def test_every_frame_is_whole_and_one_byte_less_is_not(
    recordings: list[Recording], container: str, codec: str, rate: int
) -> None:
    data = media(container, codec, recordings[0].waveform[:32000], rate=rate)
    with av.open(io.BytesIO(data), "r") as opened:
        name = opened.streams.audio[0].codec_context.codec.canonical_name
        frames = [bytes(packet) for packet in opened.demux(opened.streams.audio[0]) if packet.size]
    assert len(frames) > 10
    assert not any(is_cut(name, frame) for frame in frames)
    assert all(is_cut(name, frame[:-1]) for frame in frames)


def test_what_is_no_frame_is_not_cut() -> None:
    for data in (b"", b"\xff\xfb", b"\xff\xff\xff\xff\xff\xff", bytes(20), b"\x0b\x77\0\0\xff\0"):
        assert not any(is_cut(codec, data) for codec in ("mp3", "mp2", "ac3", "eac3", "aac", "opus"))
