"""The parts of a file that is several files one after another: what `cat a.mp3 b.mp3` or a recorder's pieces make.

A decoder reads such a file to its first end and reports success. Here the places where another file begins are found by
the container's own sizes (RIFF, AIFF, MP4) or its first bytes (FLAC, Ogg, Matroska, MP3, AMR), so that every part is
decoded by itself, with its own rate, channels and encoder delay.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

BinaryFile = io.RawIOBase | io.BytesIO
"""A seekable binary file: an open one, one in memory, or a view of a part of either."""

_MAX_PARTS = 1000
"""Beyond it the rest is one part: opening a decoder takes about a millisecond."""

_READ_BYTES = 1 << 20
_OVERLAP_BYTES = 256
_HEAD_BYTES = 16

_BEGINNINGS = {
    b"fLaC": re.compile(rb"fLaC[\x00\x80]\x00\x00\x22"),
    b"\x1a\x45\xdf\xa3": re.compile(rb"\x1a\x45\xdf\xa3[\s\S]{1,60}?(?:webm|matroska)"),
    b"#!AMR": re.compile(rb"#!AMR(?:-WB)?\n"),
    b"caff": re.compile(rb"caff\x00\x01\x00\x00desc"),
    b".snd": re.compile(rb"\.snd\x00\x00[\s\S]{6}\x00\x00\x00[\x01-\x1b]"),
    b"riff": re.compile(rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00[\s\S]{8}wave"),
    b"\x30\x26\xb2\x75": re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"),
    b"TTA1": re.compile(rb"TTA1[\x01\x02]\x00[\s\S]\x00"),
    b"wvpk": re.compile(rb"wvpk[\s\S]{12}\x00{4}[\s\S]{5}[\s\S]"),
    b"NIST_1A": re.compile(rb"NIST_1A\n"),
    b"FLV\x01": re.compile(rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09\x00{4}"),
}
"""First bytes of files, and a pattern that is unlikely within their audio."""
_OGG_PAGE = re.compile(rb"OggS\x00[\x00-\x07]")
_WAV = re.compile(rb"(?:RIFF[\s\S]{4}WAVE(?:fmt |JUNK|bext|LIST)|(?:RF64|BW64)[\s\S]{4}WAVEds64)")
_WAV_MAGICS = (b"RIFF", b"RF64", b"BW64")
# A tag, or the frame without sound that has the length and the encoder delay of what follows.
_MP3 = re.compile(
    rb"ID3[\x02-\x04]\x00[\x00\x10\x20\x40\x60\x80\xa0\xc0\xe0][\x00-\x7f]{4}"
    rb"|\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\s\S]{2}(?:\x00{9}|\x00{17}|\x00{32})(?:Xing|Info)"
)
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
_UNKNOWN_SIZE = 0x7FFFF000
"""Sizes from here on are written by programs that cannot know the size, such as FFmpeg into a pipe."""
_UNKNOWN_LONG_SIZE = 1 << 56


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes [begin, end) of a file, with some of them replaced: `changes` maps positions in the file to bytes."""

    begin: int
    end: int
    changes: dict[int, bytes] = field(default_factory=dict)
    missing_bytes: int = 0
    """Bytes that the header of the part promises beyond the file's end."""


class PartView(io.RawIOBase):
    """A part as a file of its own. Closing it leaves the file open."""

    def __init__(self, file: BinaryFile, part: Part) -> None:
        self._file, self._part, self._at = file, part, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As of a file; a position before the beginning is ignored, since libsndfile cannot bear an exception."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._part.end - self._part.begin}[whence]
        if base + offset >= 0:
            self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        begin = self._part.begin + self._at
        wanted = max(min(len(buffer), self._part.end - begin), 0)
        self._file.seek(begin)
        data = bytearray(self._file.read(wanted) or b"")
        for place, replacement in self._part.changes.items():
            for offset, byte in enumerate(replacement):
                if begin <= place + offset < begin + len(data):
                    data[place + offset - begin] = byte
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def parts_of(file: BinaryFile) -> list[Part]:
    """The parts of `file` in order, at least one; each begins where a decoder would find the beginning of a file."""
    end = file.seek(0, io.SEEK_END)
    head = read_at(file, 0, _HEAD_BYTES)
    if _is_wav(head):
        return _limited(list(_wav_parts(file, end)), end)
    if head[:4] == b"FORM" or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return _sized_parts(file, end, head)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return _between(list(_mp4_starts(file, end)), end)
    if head[:4] == b"OggS":
        return _between(list(_ogg_starts(file)), end)
    if head[:3] == b"ID3" or is_mpeg_audio(head):
        return _between(list(_mp3_starts(file, end)), end)
    for magic, pattern in _BEGINNINGS.items():
        if head.startswith(magic):
            return _between([0, *(at for at, _ in _found(file, pattern, (magic,)))], end)
    return [Part(0, end)]


def mpeg_audio_at(file: BinaryFile, at: int) -> int:
    """The position of the first frame of MPEG audio in a file that begins at `at`, behind its tags."""
    while (head := read_at(file, at, 10))[:3] == b"ID3" and len(head) == 10:
        at += _tag_bytes(head)
    return at


def _tag_bytes(head: bytes) -> int:
    size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    has_footer = head[3] == 4 and head[5] & 0x10
    return 10 + size + (10 if has_footer else 0)


def is_mpeg_audio(head: bytes) -> bool:
    """Whether `head` begins with the header of an MPEG audio frame (layers 1 to 3, not AAC)."""
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 != 0


def _between(starts: list[int], end: int) -> list[Part]:
    starts = sorted(set(starts)) or [0]
    return _limited([Part(begin, stop) for begin, stop in zip(starts, [*starts[1:], end], strict=True)], end)


def _limited(parts: list[Part], end: int) -> list[Part]:
    if len(parts) <= _MAX_PARTS:
        return parts or [Part(0, end)]
    return [*parts[: _MAX_PARTS - 1], Part(parts[_MAX_PARTS - 1].begin, end)]


def read_at(file: BinaryFile, at: int, size: int) -> bytes:
    """Up to `size` bytes from position `at` on."""
    file.seek(at)
    return file.read(size) or b""


def _found(
    file: BinaryFile, pattern: re.Pattern[bytes], hints: tuple[bytes, ...], begin: int = 0
) -> Iterator[tuple[int, bytes]]:
    """Matches of `pattern` from `begin` on, each with its position; none is longer than the overlap of two reads.

    Every match contains one of `hints`, for which bytes are searched ten times as fast.
    """
    base, kept, last = begin, b"", -1
    while data := read_at(file, base + len(kept), _READ_BYTES):
        text = kept + data
        for match in pattern.finditer(text) if any(hint in text for hint in hints) else ():
            if base + match.start() > last:
                last = base + match.start()
                yield last, match.group()
        kept = text[-_OVERLAP_BYTES:]
        base += len(text) - len(kept)


def _sized_parts(file: BinaryFile, end: int, head: bytes) -> list[Part]:
    """Files that each say their size after their first four bytes (AIFF, AVI)."""
    magic = head[:4]
    order: Literal["big", "little"] = "big" if magic == b"FORM" else "little"
    starts, at = [0], 0
    while True:
        size = int.from_bytes(read_at(file, at + 4, 4), order)
        at += 8 + size + size % 2
        following = read_at(file, at, 12) if at + 12 < end else b""
        if size == 0 or following[:4] != magic or following[8:12] == b"AVIX":
            break
        starts.append(at)
    *parts, last = _between(starts, end)
    is_cut = size < _UNKNOWN_SIZE and at > end + 1
    return [*parts, replace(last, missing_bytes=at - end) if is_cut else last]


def _mp4_starts(file: BinaryFile, end: int) -> Iterator[int]:
    """Beginnings of files among the boxes: another `ftyp` after a `moov` or `mdat`."""
    at, filled = 0, False
    yield 0
    while at + 8 <= end:
        header = read_at(file, at, 16)
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if kind == b"ftyp" and filled:
            yield at
            filled = False
        filled |= kind in (b"moov", b"mdat", b"moof")
        if size < 8:
            return
        at += size


def _ogg_starts(file: BinaryFile) -> Iterator[int]:
    """Beginnings of chained streams: a first page (or several, of streams side by side) after one that is none."""
    first_before = False
    for at, page in _found(file, _OGG_PAGE, (b"OggS",)):
        first = bool(page[5] & 2)
        if first and not first_before:
            yield at
        first_before = first


def _mp3_starts(file: BinaryFile, end: int) -> Iterator[int]:
    yield 0
    clear = 0  # no other beginning before this byte: it lies in a tag or is its first frame
    for at, match in _found(file, _MP3, (b"ID3", b"Xing", b"Info")):
        if match[:3] != b"ID3":
            if at > clear:
                yield at
            continue
        if at and at < clear:
            continue
        is_second = at == clear  # of two tags, one behind the other
        after = mpeg_audio_at(file, at)
        frame = read_at(file, after, 2)
        if is_second or after >= end or is_mpeg_audio(frame) or not any(frame):
            clear = after
            if not is_second:
                yield at


def _wav_parts(file: BinaryFile, end: int) -> Iterator[Part]:
    """WAV files one after another. A size of the samples that is too small, or that nobody knew, is corrected: samples
    last to the next file or to the end, but for chunks and tags there."""
    begin = 0
    while begin < end:
        part = _wav_part(file, begin, end)
        yield from _by_chunks(file, part)
        begin = part.end


def _is_wav(head: bytes) -> bool:
    return head[:4] in _WAV_MAGICS and head[8:12] == b"WAVE"


@dataclass(frozen=True, slots=True)
class _WavSamples:
    """Where a WAV file's samples begin, their declared size in bytes (None: nobody knew), and the sizes in its header:
    of the file and of the samples, `size_bytes` long each (4, in RF64 8)."""

    begin: int
    declared: int | None
    size_positions: tuple[int, int]
    size_bytes: int

    def sized(self, size: int) -> dict[int, bytes]:
        """The bytes of a header that declares `size` bytes of samples."""
        written = min(size, (1 << 8 * self.size_bytes) - 45).to_bytes(self.size_bytes, "little")
        return dict.fromkeys(self.size_positions, written)


def _wav_part(file: BinaryFile, begin: int, end: int) -> Part:
    samples = _wav_samples(file, begin, end)
    if samples is None:
        return Part(begin, end)
    declared = samples.declared
    if declared and samples.begin + declared <= end:
        # A few writers leave out the byte that fills up an odd number.
        for stop in {samples.begin + declared + declared % 2, samples.begin + declared}:
            following = _after_samples(file, stop, end)
            if following is not None:
                return Part(begin, following)
    following = next((at for at, _ in _found(file, _WAV, (b"WAVE",), samples.begin)), end)
    missing = max(samples.begin + (declared or 0) - end, 0) if following == end else 0
    return Part(begin, following, samples.sized(following - samples.begin), missing)


def _by_chunks(file: BinaryFile, part: Part) -> list[Part]:
    """`part` once for each chunk of samples, without the others: of several, libsndfile reads the last one alone."""
    chunks, at = [], part.begin + 12
    while at + 8 <= part.end:
        header = read_at(file, at, 8)
        if header[:4] == b"data":
            chunks.append(at)
        size = int.from_bytes(header[4:], "little")
        at += 8 + size + size % 2
    if len(chunks) < 2 or part.changes:
        return [part]
    own, unread = chunks[:_MAX_PARTS], chunks[_MAX_PARTS:]
    parts = [replace(part, changes=_alone(chunks, number, part.end)) for number in range(len(own))]
    return [*parts[:-1], replace(parts[-1], missing_bytes=part.end - unread[0])] if unread else parts


def _alone(chunks: list[int], number: int, end: int) -> dict[int, bytes]:
    """What hides all `chunks` but one: those before it and those behind it become a chunk each that nobody knows."""
    own = chunks[number]
    hidden = [(chunks[0], own)] if number else []
    if number + 1 < len(chunks):
        hidden.append((chunks[number + 1], end))
    if any(stop - begin - 8 > 0xFFFFFFFF for begin, stop in hidden):
        return {at: b"skip" for at in chunks[:_MAX_PARTS] if at != own}
    return {begin: b"skip" + max(stop - begin - 8, 0).to_bytes(4, "little") for begin, stop in hidden}


def _wav_samples(file: BinaryFile, begin: int, end: int) -> _WavSamples | None:
    """The samples of the WAV or RF64 file at `begin`; None where there is no chunk `data`."""
    at, long_at = begin + 12, None
    while at + 8 <= end:
        header = read_at(file, at, 8)
        size = int.from_bytes(header[4:], "little")
        if header[:4] == b"ds64":
            long_at = at + 8
        if header[:4] == b"data" and (long_at is None or size != 0xFFFFFFFF):
            return _WavSamples(at + 8, size if size < _UNKNOWN_SIZE else None, (at + 4, begin + 4), 4)
        if header[:4] == b"data" and long_at is not None:
            size = int.from_bytes(read_at(file, long_at + 8, 8), "little")
            return _WavSamples(at + 8, size if size < _UNKNOWN_LONG_SIZE else None, (long_at + 8, long_at), 8)
        at += 8 + size + size % 2
    return None


def _after_samples(file: BinaryFile, at: int, end: int) -> int | None:
    """Where the WAV file ends whose samples end at `at`: at the next file or at `end`. None if more samples follow."""
    is_chunk = False
    while at + 8 < end:
        header = read_at(file, at, 12)
        if _is_wav(header):
            return at
        if header.startswith(_TAGS):
            return end
        size = int.from_bytes(header[4:8], "little")
        if not all(0x20 <= byte < 0x7F for byte in header[:4]) or at + 8 + size > end + 1:
            return end if is_chunk else None  # behind a chunk, a wrong size is less strange than sound
        is_chunk = True
        at += 8 + size + size % 2
    return end
