"""Kinds of audio files by their first bytes, told apart from PCM, which is as good as never taken for one."""

from __future__ import annotations

from collections.abc import Callable

from moulin.audio.coded_frames import ac3_bytes, mpeg_bytes, mpeg_layer

SNIFFED_BYTES = 8192
"""With so many bytes from the beginning every kind is known; with 16 all that begin with a name of their own."""

_SYNCED_FRAMES = 4
"""Frames that must follow each other: each fixes two to three bytes."""
_FRAME_HEADER_BYTES = 8

_TS_PACKET = 188

_TEXT_BYTES, _LETTERS = 256, 12
"""The bytes by which text is known, and how many different ones it has more than."""


def container_of(head: bytes) -> str | None:
    """What a file that begins with `head` is, as a phrase for messages; None for PCM, and where more is needed."""
    for begins, phrase in _NAMED:
        if begins(head):
            return phrase
    if _frames(head, mpeg_bytes):
        return "an MP3 file" if mpeg_layer(head) == 3 else "an MP2 file"
    if _frames(head, _aac_bytes):
        return "an AAC file"
    if _frames(head, _latm_bytes, alike=0xE0):
        return "an AAC file (LATM)"
    if _frames(head, ac3_bytes):
        return "an AC-3 file"
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


def _is_text(head: bytes) -> bool:
    """Printable characters of many kinds: samples in base64, JSON, a web page with an error."""
    head = head[:_TEXT_BYTES]
    return len(head) == _TEXT_BYTES and head.isascii() and head.decode().isprintable() and len(set(head)) > _LETTERS


def _is_old_quicktime(head: bytes) -> bool:
    """A file of the time before boxes of its kind, which begins with its index, its content or room for either."""
    return head.startswith(b"\0\0\0\x08wide") or (head[4:8] == b"moov" and head[12:16] in (b"mvhd", b"cmov"))


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
    (_is_old_quicktime, "a QuickTime file"),
    (_is_id3, "an MP3 file"),
    (_starts(b"#!AMR\n", b"#!AMR-WB\n"), "an AMR file"),
    (_starts(b"caff\0\1\0\0"), "a CAF file"),
    (_starts(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9"), "a WMA file"),
    (_starts(b"FLV\1\x04\0\0\0\x09", b"FLV\1\x05\0\0\0\x09"), "a Flash video"),
    (_starts(b"riff\x2e\x91\xcf\x11\xa5\xd6"), "a W64 file"),
    (_is_text, "text"),
    (_starts(b".snd\0\0\0"), "an AU file"),
    (_starts(b"NIST_1A\n"), "a SPHERE file"),
    (_starts(b"Creative Voice File\x1a"), "a VOC file"),
    (_starts(b"\0\0\x01\xba"), "an MPEG program stream"),
    (_starts(b"wvpk"), "a WavPack file"),
    (_starts(b"TTA1\1\0", b"TTA1\2\0"), "a TTA file"),
    (_starts(b"MAC \x96\x0f", b"MAC \x8c\x0f", b"MAC \x7c\x0f"), "a Monkey's Audio file"),
    (_starts(b"MPCK", b"MP+\x07"), "a Musepack file"),
    (_starts(b"tBaK"), "a TAK file"),
    (_starts(b"DSD \x1c\0\0\0"), "a DSF file"),
    (_starts(b"ea3\3", b"EA3\1"), "an ATRAC file"),
    (_starts(b".RMF\0\0\0", b".ra\xfd"), "a RealAudio file"),
    (_starts(b"\x06\x0e\x2b\x34\x02\x05\x01\x01"), "an MXF file"),
    (_starts(b"\x7f\xfe\x80\x01", b"\xfe\x7f\x01\x80"), "a DTS file"),
)


def _frames(head: bytes, frame_bytes: Callable[[bytes], int], alike: int = 0xFE) -> bool:
    """Whether `head` begins with several frames, each right behind the one before. In their second bytes the bits of
    the mask `alike` are the same."""
    at = 0
    for _ in range(_SYNCED_FRAMES):
        header = head[at : at + _FRAME_HEADER_BYTES]
        length = frame_bytes(header) if len(header) == _FRAME_HEADER_BYTES else 0
        if not length or (header[1] ^ head[1]) & alike:
            return False
        at += length
    return True


def _latm_bytes(header: bytes) -> int:
    """The length of the frame of AAC (LATM, in LOAS) with this header; 0 for none."""
    if header[0] != 0x56 or header[1] & 0xE0 != 0xE0:
        return 0
    length = (header[1] & 0x1F) << 8 | header[2]
    return 3 + length if length > 4 else 0


def _aac_bytes(header: bytes) -> int:
    """The length of the frame of AAC (ADTS) with this header; 0 for none."""
    if header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > 7 else 0
