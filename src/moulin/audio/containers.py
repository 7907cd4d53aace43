"""Kinds of audio files by their first bytes, told apart from PCM, which is as good as never taken for one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

SNIFFED_BYTES = 8192
"""With so many bytes from the beginning every kind is known; with 16 all that begin with a name of their own."""

_MP3_KBPS = {
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}  # layer III of MPEG 1; of MPEG 2 and 2.5
_MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_SYNCED_FRAMES = 4
"""Frames that must follow each other: each fixes two to three bytes."""

_TS_PACKET = 188


def container_of(head: bytes) -> str | None:
    """What a file that begins with `head` is, as a phrase for messages; None for PCM, and where more is needed."""
    for begins, phrase in _NAMED:
        if begins(head):
            return phrase
    if _frames(head, _mp3_frame_bytes):
        return "an MP3 file"
    if _frames(head, _aac_frame_bytes):
        return "an AAC file"
    if len(head) > 6 * _TS_PACKET and all(
        head[at] == 0x47 != head[at + 1] for at in range(0, 6 * _TS_PACKET, _TS_PACKET)
    ):
        return "an MPEG transport stream"
    return None


def _starts(*prefixes: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(prefixes)


def _form(names: tuple[bytes, ...], kinds: tuple[bytes, ...]) -> Callable[[bytes], bool]:
    """A file of chunks: a name, the size, and a kind."""
    return lambda head: head[:4] in names and head[8:12] in kinds


def _is_mp4(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[:2] == b"\0\0" and head[8:12].isascii() and len(head) >= 12


def _is_id3(head: bytes) -> bool:
    """An ID3 tag of version 2.2 to 2.4. In the four bytes of its size the highest bit is never set."""
    return head[:3] == b"ID3" and len(head) >= 10 and head[3] in (2, 3, 4) and head[4] == 0 and max(head[6:10]) < 128


def _is_matroska(head: bytes) -> bool:
    return head.startswith(b"\x1a\x45\xdf\xa3") and b"\x42\x82" in head[4:64]


_NAMED: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (_form((b"RIFF", b"RIFX", b"RF64", b"BW64"), (b"WAVE",)), "a WAV file"),
    (_form((b"RIFF",), (b"AVI ",)), "an AVI file"),
    (_form((b"FORM",), (b"AIFF", b"AIFC")), "an AIFF file"),
    (_starts(b"OggS\0\x02\0\0\0\0\0\0\0\0"), "an Ogg file"),
    (_starts(b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22"), "a FLAC file"),
    (_is_matroska, "a WebM or Matroska file"),
    (_is_mp4, "an MP4 or M4A file"),
    (_is_id3, "an MP3 file"),
    (_starts(b"#!AMR\n", b"#!AMR-WB\n"), "an AMR file"),
    (_starts(b"caff\0\1\0\0"), "a CAF file"),
    (_starts(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9"), "a WMA file"),
    (_starts(b"FLV\1\x04\0\0\0\x09", b"FLV\1\x05\0\0\0\x09"), "a Flash video"),
    (_starts(b"riff\x2e\x91\xcf\x11\xa5\xd6"), "a W64 file"),
    (_starts(b".snd\0\0\0"), "an AU file"),
)


def _frames(head: bytes, frame_bytes: Callable[[bytes], int]) -> bool:
    """Whether `head` begins with frames that follow each other."""
    at = 0
    headers: list[int] = []
    while len(headers) < _SYNCED_FRAMES:
        length = frame_bytes(head[at : at + 8])
        if not length:
            return False
        headers.append(head[at + 1] & 0xFE)
        at += length
    return all(one == other for one, other in pairwise(headers))


def _mp3_frame_bytes(header: bytes) -> int:
    """The length of the frame of MPEG audio, layer III, with this header; 0 for none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version, rate, bits = header[1] >> 3 & 3, header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or rate == 3 or bits in (0, 15):
        return 0
    kbps = _MP3_KBPS[max(version, 2)][bits - 1]
    return (144 if version == 3 else 72) * kbps * 1000 // _MP3_RATES[version][rate] + (header[2] >> 1 & 1)


def _aac_frame_bytes(header: bytes) -> int:
    """The length of the frame of AAC (ADTS) with this header; 0 for none."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > 7 else 0
