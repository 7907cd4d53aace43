"""Files of chunks with several chunks of samples, with empty ones, and with more than any program writes.

Chunks are written here by hand; the sound is what libsndfile reads of the same file without them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.errors import AudioError
from tests.conftest import Recording

from .media import heard, shifts_ms, wav

GUID = bytes.fromhex("f3acd3118cd100c04f8edb8a")

WRITERS: dict[str, tuple[bytes, Callable[[bytes, bytes], bytes]]] = {
    "WAV": (b"data", lambda name, content: name + struct.pack("<I", len(content)) + content),
    "RF64": (b"data", lambda name, content: name + struct.pack("<I", len(content)) + content),
    "AIFF": (b"SSND", lambda name, content: name + struct.pack(">I", len(content)) + content),
    "CAF": (b"data", lambda name, content: name + struct.pack(">Q", len(content)) + content),
    "W64": (b"data", lambda name, content: name + GUID + struct.pack("<Q", len(content) + 24) + content),
}
"""The name of a chunk of samples, and how chunks are written."""


def speech_of(recordings: list[Recording]) -> Floats:
    return recordings[0].waveform[:48_000]


def same(found: Floats, expected: Floats) -> bool:
    """A W64 file ends at a multiple of eight bytes: libsndfile gives up to three samples of zero more."""
    return len(expected) <= len(found) <= len(expected) + 16 and np.allclose(
        found[: len(expected)], expected, atol=1e-4
    )


@pytest.mark.parametrize("count", [1, 3000])
@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize("format", WRITERS)
def test_empty_chunks_of_samples(recordings: list[Recording], format: str, where: str, count: int) -> None:
    speech = speech_of(recordings)
    name, written = WRITERS[format]
    data = wav(speech, format=format)
    at = data.index(name) if where == "before" else len(data)
    found, warnings = heard(data[:at] + written(name, b"") * count + data[at:])
    assert same(found, speech)
    assert warnings == () or format == "W64"  # its size in the header is not corrected


@pytest.mark.parametrize("format", ["WAV", "AIFF", "CAF", "W64"])
def test_two_chunks_of_samples(recordings: list[Recording], format: str) -> None:
    speech = speech_of(recordings)
    name, written = WRITERS[format]
    samples = (speech * 32767).astype(">i2" if format == "AIFF" else "<i2").tobytes()
    before = {"AIFF": bytes(8), "CAF": bytes(4)}.get(format, b"")
    found, warnings = heard(wav(speech, format=format) + written(name, before + samples))
    assert same(found[: len(speech)], speech)
    # Of CAF and W64 libsndfile is off by the header of a chunk, within a millisecond.
    assert max(map(abs, shifts_ms(found[len(speech) :], speech))) < 1
    assert warnings == () or format == "W64"  # its size in the header is not corrected


def test_a_wav_without_samples_and_a_chunk_behind(recordings: list[Recording]) -> None:
    """A size of 0 is also what a recorder leaves that was killed: then samples follow, and no name of a chunk."""
    data = wav(speech_of(recordings))
    header = data[:40] + bytes(4)
    text = b"INFOISFT" + bytes(range(256)) * 20
    assert len(heard(header + b"LIST" + struct.pack("<I", len(text)) + text)[0]) == 0
    assert same(heard(header + data[44:])[0], speech_of(recordings))


def test_a_wav_of_empty_chunks_and_a_size_that_nobody_knew(recordings: list[Recording]) -> None:
    speech = speech_of(recordings)
    data = wav(speech)
    empty = b"data" + bytes(4)
    found, warnings = heard(data[:36] + empty * 5000 + b"data\xff\xff\xff\xff" + data[44:])
    assert same(found, speech)
    assert warnings == ()


@pytest.mark.parametrize("name", [b"data", b"junk", b"LIST"])
def test_more_chunks_than_any_program_writes(recordings: list[Recording], name: bytes) -> None:
    data = wav(speech_of(recordings))
    for at in (36, len(data)):
        many = data[:at] + (name + bytes(4)) * 400_000 + data[at:]
        with pytest.raises(AudioError, match="more than 100,000 chunks"):
            heard(many)
