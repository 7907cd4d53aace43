"""The bytes of audio that a file's header declares and that are not there: how much a cut file has lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moulin.audio.part import BinaryFile, Part, read_at
from moulin.audio.parts import mpeg_audio_at

_UNKNOWN_32, _UNKNOWN_64 = 0x7FFFF000, 1 << 56
_W64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_MATROSKA, _CLUSTER = bytes.fromhex("1a45dfa3"), bytes.fromhex("1f43b675")
_SEGMENT = bytes.fromhex("18538067")
_HEADER_BYTES = 4096
_TS_PACKETS = (188, 192)
"""Lengths of packets of MPEG-TS, without and with four bytes before their first, `G`."""

_LAST_CLUSTER_BYTES = 6 << 20
_LAST_PAGE_BYTES = 27 + 255 + 255 * 255


def missing_bytes(file: BinaryFile, part: Part) -> int:
    """Bytes that `part` declares beyond its end, where its container says so; of AIFF, AVI and WAV `parts_of` knows."""
    if part.missing_bytes:
        return part.missing_bytes
    head = read_at(file, part.begin, _HEADER_BYTES)
    for magic, declared_end in _CONTAINERS.items():
        if head.startswith(magic):
            return max(declared_end(_Beginning(file, part, head)) - (part.end - part.begin), 0)
    if head.startswith(b"ID3") or head[:1] == b"\xff":
        return max(_mp3_end(file, part) - (part.end - part.begin), 0)
    return 0


def lacks_its_end(file: BinaryFile, part: Part) -> bool:
    """Whether `part` ends within an Ogg page, a block of Matroska's or a packet of MPEG-TS, as only a cut file does.

    The last page of an Ogg stream has its length; a live WebM has no length at all.
    """
    head = read_at(file, part.begin, 3 * _TS_PACKETS[-1])
    if head.startswith(b"OggS"):
        return _is_ogg_cut(file, part)
    if head.startswith(_MATROSKA):
        return _is_matroska_cut(file, part)
    for size in _TS_PACKETS:
        if head[size % 188 :: size][:3] == b"GGG":
            return (part.end - part.begin) % size > 0
    return False


def _is_ogg_cut(file: BinaryFile, part: Part) -> bool:
    begin = max(part.end - _LAST_PAGE_BYTES, part.begin)
    tail = read_at(file, begin, part.end - begin)
    at = tail.rfind(b"OggS\0")
    if at < 0:
        return False
    segments = tail[at + 27 : at + 27 + tail[at + 26]] if at + 26 < len(tail) else b"\xff"
    return at + 27 + len(segments) + sum(segments) > len(tail)


def _is_matroska_cut(file: BinaryFile, part: Part) -> bool:
    begin = max(part.end - _LAST_CLUSTER_BYTES, part.begin)
    tail = read_at(file, begin, part.end - begin)
    at = tail.rfind(_CLUSTER)
    while 0 <= at < len(tail):
        id_bytes, head = 9 - tail[at].bit_length(), tail[at : at + 12]
        if tail[at] < 0x10 or len(head) <= id_bytes:
            return tail[at] >= 0x10
        size, size_bytes = _sized(head[id_bytes:])
        is_cluster = head.startswith(_CLUSTER)
        at += id_bytes + size_bytes + (0 if is_cluster else size or 0)
    return at > len(tail)


def _sized(data: bytes) -> tuple[int | None, int]:
    """A size in Matroska's form, None where it is unknown, and its length."""
    length = 9 - data[0].bit_length()
    size = int.from_bytes(data[:length], "big") & ((1 << 7 * length) - 1)
    return None if size == (1 << 7 * length) - 1 else size, length


@dataclass(frozen=True, slots=True)
class _Beginning:
    file: BinaryFile
    part: Part
    head: bytes
    """The first bytes of the part."""


def _au_end(part: _Beginning) -> int:
    size = int.from_bytes(part.head[8:12], "big")
    return int.from_bytes(part.head[4:8], "big") + size if size < _UNKNOWN_32 else 0


def _w64_end(part: _Beginning) -> int:
    size = int.from_bytes(part.head[16:24], "little")
    return size if size < _UNKNOWN_64 else 0


def _caf_end(part: _Beginning) -> int:
    at = 8
    while at + 12 <= part.part.end - part.part.begin:
        chunk = read_at(part.file, part.part.begin + at, 12)
        size = int.from_bytes(chunk[4:], "big", signed=True)
        if size < 0 or chunk[:4] == b"data":
            return at + 12 + size if size > 0 else 0
        at += 12 + size
    return 0


def _voc_end(part: _Beginning) -> int:
    at, size = int.from_bytes(part.head[20:22], "little"), part.part.end - part.part.begin
    while 26 <= at < size:
        block = read_at(part.file, part.part.begin + at, 4)
        if len(block) < 4 or not block[0]:
            return 0
        at += 4 + int.from_bytes(block[1:], "little")
    return at


def _asf_end(part: _Beginning) -> int:
    head = part.head
    at = head.find(_ASF_PROPERTIES)
    size = int.from_bytes(head[at + 40 : at + 48], "little") if at >= 0 else 0
    return size if size < _UNKNOWN_64 else 0


def _matroska_end(part: _Beginning) -> int:
    head = part.head
    at = head.find(_SEGMENT) + len(_SEGMENT)
    if at < len(_SEGMENT) or at >= len(head) or not head[at]:
        return 0
    size, length = _sized(head[at : at + 8])
    return 0 if size is None else at + length + size


def _mp3_end(file: BinaryFile, part: Part) -> int:
    """The end by the first frame's tag, which most encoders write."""
    at = mpeg_audio_at(file, part.begin)
    frame = read_at(file, at, 64)
    tag = max(frame.find(b"Xing"), frame.find(b"Info"))
    flags = int.from_bytes(frame[tag + 4 : tag + 8], "big")
    if tag < 0 or flags & 3 != 3:
        return 0
    return at - part.begin + int.from_bytes(frame[tag + 12 : tag + 16], "big")


_CONTAINERS: dict[bytes, Callable[[_Beginning], int]] = {
    b"Creative Voice File\x1a": _voc_end,
    b".snd": _au_end,
    _W64: _w64_end,
    b"caff": _caf_end,
    _ASF: _asf_end,
    _MATROSKA: _matroska_end,
}
