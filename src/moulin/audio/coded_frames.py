"""Frames of lossy codecs: the length that a frame's header declares, and the delay that every encoder has."""

from __future__ import annotations

from typing import Any

_BIT_RATES = {
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Kilobits a second of MPEG audio by (is MPEG-1, layer), for the header's indices 1 to 14."""

_MPEG_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Sample rates by the header's version (3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5)."""

_AC3_BIT_RATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_AC3_RATES = (48000, 44100, 32000)

_DELAYS = {"mp3": 1105, "mp2": 481, "ac3": 256, "eac3": 256}
"""Samples that encoder and decoder together are late by: of their filter banks and overlapping transforms."""


def is_cut(codec: str, frame: bytes) -> bool:
    """Whether `frame` has fewer bytes than its header declares. False for other codecs than MPEG audio and AC-3, and
    for what is no frame."""
    declared = {"mp3": mpeg_bytes, "mp2": mpeg_bytes, "ac3": ac3_bytes, "eac3": ac3_bytes}.get(codec)
    return declared is not None and len(frame) >= 6 and len(frame) < declared(frame)


def encoder_delay_sec(codec: str, packet: bytes, first: Any) -> float:
    """The delay of `codec` in seconds, where `first` is the first decoded frame (PyAV's) of a track, and `packet` its
    bytes; 0 for codecs without a known one. AAC is late by one frame."""
    if codec in ("mp2", "mp3") and len(packet) > 1:  # FFmpeg calls either so in an MPEG transport stream
        codec = "mp2" if mpeg_layer(packet) == 2 else "mp3"
    samples = first.samples if codec in ("aac", "aac_latm") else _DELAYS.get(codec, 0)
    return float(samples / first.sample_rate)


def mpeg_layer(frame: bytes) -> int:
    """The layer of a frame of MPEG audio, of two bytes at least."""
    return 4 - (frame[1] >> 1 & 3)


def mpeg_bytes(frame: bytes) -> int:
    """The length of an MPEG audio frame of layers 2 and 3 by its first four bytes, 0 for anything else."""
    version, layer = frame[1] >> 3 & 3, mpeg_layer(frame)
    bit_rate, rate, padding = frame[2] >> 4, frame[2] >> 2 & 3, frame[2] >> 1 & 1
    if frame[0] != 0xFF or frame[1] < 0xE0 or version == 1 or layer not in (2, 3) or bit_rate in (0, 15) or rate == 3:
        return 0
    is_first = version == 3
    per_bit = 144 if is_first or layer == 2 else 72
    return per_bit * _BIT_RATES[is_first, layer][bit_rate - 1] * 1000 // _MPEG_RATES[version][rate] + padding


def ac3_bytes(frame: bytes) -> int:
    """The length of an AC-3 or E-AC-3 frame by its first six bytes, 0 for anything else."""
    if frame[:2] != b"\x0b\x77":
        return 0
    if frame[5] >> 3 > 10:  # E-AC-3
        return 2 * (((frame[2] & 7) << 8 | frame[3]) + 1)
    rate, code = frame[4] >> 6, frame[4] & 0x3F
    if rate == 3 or code // 2 >= len(_AC3_BIT_RATES):
        return 0
    words = _AC3_BIT_RATES[code // 2] * 1000 * 1536 // (16 * _AC3_RATES[rate])
    return 2 * (words + (code & 1 if _AC3_RATES[rate] == 44100 else 0))
