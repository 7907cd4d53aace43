"""Files by their first bytes, and PCM that is never taken for one."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from moulin.audio.containers import SNIFFED_BYTES, container_of
from tests.conftest import Recording

from .media import media

SPEECH = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)

WRITTEN = {
    ("WAV", "PCM_16"): "a WAV file",
    ("WAVEX", "FLOAT"): "a WAV file",
    ("RF64", "PCM_16"): "a WAV file",
    ("AIFF", "PCM_16"): "an AIFF file",
    ("AU", "PCM_16"): "an AU file",
    ("W64", "PCM_16"): "a W64 file",
    ("CAF", "PCM_16"): "a CAF file",
    ("FLAC", "PCM_16"): "a FLAC file",
    ("OGG", "VORBIS"): "an Ogg file",
    ("OGG", "OPUS"): "an Ogg file",
    ("MP3", "MPEG_LAYER_III"): "an MP3 file",
}


@pytest.mark.parametrize(("format", "subtype"), WRITTEN)
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_files_of_libsndfile(format: str, subtype: str, rate: int) -> None:
    file = io.BytesIO()
    soundfile.write(file, SPEECH, rate, format=format, subtype=subtype)
    assert container_of(file.getvalue()[:SNIFFED_BYTES]) == WRITTEN[format, subtype]


@pytest.mark.needs("av")
@pytest.mark.parametrize(
    ("suffix", "codec", "phrase"),
    [
        ("mp4", "aac", "an MP4 or M4A file"),
        ("mov", "aac", "an MP4 or M4A file"),
        ("webm", "libopus", "a WebM or Matroska file"),
        ("mkv", "aac", "a WebM or Matroska file"),
        ("mp3", "libmp3lame", "an MP3 file"),
        ("adts", "aac", "an AAC file"),
        ("mpegts", "aac", "an MPEG transport stream"),
        ("avi", "libmp3lame", "an AVI file"),
        ("flv", "aac", "a Flash video"),
    ],
)
def test_files_of_ffmpeg(suffix: str, codec: str, phrase: str) -> None:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format={"mkv": "matroska"}.get(suffix, suffix)) as container:
        stream: Any = container.add_stream(codec, rate=48_000)
        frame: Any = av.AudioFrame.from_ndarray((SPEECH[None] * 32767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = 48_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    assert container_of(file.getvalue()[:SNIFFED_BYTES]) == phrase


@pytest.mark.needs("av")
@pytest.mark.parametrize(
    ("container", "codec", "phrase"),
    [
        ("mp2", "mp2", "an MP2 file"),
        ("ac3", "ac3", "an AC-3 file"),
        ("latm", "aac", "an AAC file (LATM)"),
        ("wv", "wavpack", "a WavPack file"),
        ("tta", "tta", "a TTA file"),
        ("voc", "pcm_s16le", "a VOC file"),
        ("mpeg", "mp2", "an MPEG program stream"),
        ("asf", "wmav2", "a WMA file"),
    ],
)
def test_files_of_fewer_people(container: str, codec: str, phrase: str) -> None:
    assert container_of(media(container, codec, SPEECH)[:SNIFFED_BYTES]) == phrase


@pytest.mark.parametrize(
    ("head", "phrase"),
    [
        (base64.b64encode(SPEECH.tobytes()), "text"),
        (b'{"type": "input_audio_buffer.append", "audio": "' + base64.b64encode(SPEECH.tobytes()), "text"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "a QuickTime file"),
        (b"NIST_1A\n   1024\n", "a SPHERE file"),
        (b"a" * 3000, None),
    ],
)
def test_what_is_known_by_its_first_bytes(head: bytes, phrase: str | None) -> None:
    assert container_of(head[:SNIFFED_BYTES]) == phrase


def test_speech_is_never_a_file(recordings: list[Recording]) -> None:
    """From every thousandth sample, in every encoding of a live stream; the beginning of G.711 too."""
    for recording in recordings:
        for samples in ((recording.waveform * 32768).astype("<i2"), recording.waveform.astype("<f4")):
            data = samples.tobytes()
            for begin in range(0, len(data), 4000):
                assert container_of(data[begin : begin + SNIFFED_BYTES]) is None


@given(st.binary(max_size=2), st.sampled_from([b"\0", b"\xff", b"\xff\xff", b"\xff\xfb", b"G", b"\x7f\x80"]))
def test_bytes_that_repeat_are_no_file(begin: bytes, repeated: bytes) -> None:
    """Silence, full scale, and the words that MPEG audio and transport streams look for."""
    assert container_of((begin + repeated * SNIFFED_BYTES)[:SNIFFED_BYTES]) is None


@pytest.mark.parametrize("seed", range(20))
def test_noise_of_any_level_is_no_file(seed: int) -> None:
    draw = np.random.default_rng(seed)
    data = (draw.normal(0, 10 ** draw.uniform(-4, 0), SNIFFED_BYTES // 2) * 32767).clip(-32768, 32767).astype("<i2")
    assert container_of(data.tobytes()) is None
    assert container_of(draw.bytes(SNIFFED_BYTES)) is None


@pytest.mark.parametrize("head", [b"", b"R", b"RIFF", b"RIFF\0\0\0\0WAV", b"OggS", b"ID3", b"\xff\xfb\x90"])
def test_too_little_to_know(head: bytes) -> None:
    assert container_of(head) is None


def test_the_demo_recordings(recordings: list[Recording]) -> None:
    assert container_of(Path(recordings[0].file).read_bytes()[:16]) == "a FLAC file"
