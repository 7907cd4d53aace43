from __future__ import annotations

import io
import struct
from typing import get_args

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from moulin.audio.decode import decode_pcm
from moulin.audio.pcm import PcmEncoding, sample_bytes
from moulin.errors import AudioError

ENCODINGS: tuple[PcmEncoding, ...] = get_args(PcmEncoding)
STRUCT = {"u8": "B", "s8": "b", "s16le": "<h", "s16be": ">h", "s32le": "<i", "f32le": "<f", "f64le": "<d"}
BITS = {"u8": 8, "s8": 8, "s16le": 16, "s16be": 16, "s24le": 24, "s32le": 32}


def one_sample(chunk: bytes, encoding: str) -> float:
    """The value of one sample, by way of Python's integers."""
    if encoding == "s24le":
        return int.from_bytes(chunk, "little", signed=True) / 2.0**23
    value: int = struct.unpack(STRUCT[encoding], chunk)[0]
    if encoding == "u8":
        value -= 128
    return value / float(2 ** (BITS[encoding] - 1))


@given(st.sampled_from(sorted(BITS)), st.integers(1, 4), st.binary(max_size=240))
def test_integers_of_every_width_and_channel_count(encoding: PcmEncoding, channels: int, data: bytes) -> None:
    width = sample_bytes(encoding)
    data = data[: len(data) // (width * channels) * width * channels]
    values = [one_sample(data[i : i + width], encoding) for i in range(0, len(data), width)]
    mono = [sum(values[i : i + channels]) / channels for i in range(0, len(values), channels)]
    decoded = decode_pcm(data, sample_rate=16000, channels=channels, encoding=encoding)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, np.array(mono), atol=1e-6)


@given(st.lists(st.floats(-1, 1, width=32), max_size=50), st.sampled_from(["f32le", "f64le"]))
def test_floats_pass_unchanged(values: list[float], encoding: PcmEncoding) -> None:
    data = b"".join(struct.pack(STRUCT[encoding], value) for value in values)
    assert decode_pcm(data, sample_rate=16000, encoding=encoding).tolist() == values


@given(st.sampled_from(ENCODINGS), st.integers(1, 3), st.binary(max_size=100))
def test_a_split_frame_is_refused_and_nothing_else_escapes(encoding: PcmEncoding, channels: int, data: bytes) -> None:
    frame_bytes = sample_bytes(encoding) * channels
    try:
        decoded = decode_pcm(data, sample_rate=16000, channels=channels, encoding=encoding)
    except AudioError:
        refused = True
    else:
        refused = False
        assert len(decoded) * frame_bytes == len(data)
        assert np.isfinite(decoded).all()
    if encoding not in ("f32le", "f64le"):  # floats may also be NaN or huge
        assert refused == bool(len(data) % frame_bytes)


@pytest.mark.parametrize(("encoding", "subtype"), [("mulaw", "ULAW"), ("alaw", "ALAW")])
def test_g711_equals_libsndfile_for_every_byte(encoding: PcmEncoding, subtype: str) -> None:
    data = bytes(range(256))
    expected, _ = soundfile.read(
        io.BytesIO(data), format="RAW", subtype=subtype, samplerate=8000, channels=1, dtype="float32"
    )
    np.testing.assert_array_equal(decode_pcm(data, sample_rate=16000, encoding=encoding), expected)


def test_other_rates_are_resampled_to_16_khz() -> None:
    assert decode_pcm(bytes(2 * 8000), sample_rate=8000).shape == (16000,)
    assert decode_pcm(b"", sample_rate=8000).shape == (0,)


def test_nan_is_refused() -> None:
    with pytest.raises(AudioError, match="PCM data: expected finite samples, got nan at sample 1"):
        decode_pcm(struct.pack("<ff", 0, float("nan")), sample_rate=16000, encoding="f32le")


def test_odd_byte_count_says_what_was_expected() -> None:
    with pytest.raises(AudioError, match=r"whole frames of 4 bytes \(s16le, 2 channel\(s\)\) of PCM, got 7"):
        decode_pcm(bytes(7), sample_rate=16000, channels=2)


def test_nonsense_parameters_are_refused() -> None:
    with pytest.raises(AudioError, match="sample rate of 1000 to 768000 Hz, got 0"):
        decode_pcm(b"", sample_rate=0)
    with pytest.raises(AudioError, match="at least 1 channel"):
        decode_pcm(b"", sample_rate=16000, channels=0)
    with pytest.raises(AudioError, match="got 's12le'"):
        decode_pcm(b"", sample_rate=16000, encoding="s12le")  # type: ignore[arg-type]
