"""A WAV header for samples that came without one."""

from __future__ import annotations

import struct

from moulin.audio.pcm import PcmEncoding, RawFormat
from moulin.errors import AudioError

_TAGS: dict[PcmEncoding, int] = {
    "u8": 1, "s16le": 1, "s24le": 1, "s32le": 1, "f32le": 3, "f64le": 3, "alaw": 6, "mulaw": 7,
}  # fmt: skip


def wav_header(raw: RawFormat, data_bytes: int) -> bytes:
    """44 bytes that make a WAV file of `data_bytes` of samples; of 4 GiB or more it says that they go to the end.

    Raises AudioError for an encoding that a WAV file cannot hold.
    """
    if raw.encoding not in _TAGS:
        raise AudioError(f"Expected samples in {', '.join(_TAGS)} for a WAV file, got {raw.encoding}")
    frame = raw.frame_bytes
    fields = (_TAGS[raw.encoding], raw.channels, raw.sample_rate, raw.sample_rate * frame, frame)
    chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, *fields, 8 * frame // raw.channels)
    data = struct.pack("<4sI", b"data", min(data_bytes, 0xFFFFFFFF))
    size = min(4 + len(chunk) + len(data) + data_bytes, 0xFFFFFFFF)
    return struct.pack("<4sI4s", b"RIFF", size, b"WAVE") + chunk + data
