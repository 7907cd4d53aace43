"""The parts of a file that is several files one after another: what `cat a.mp3 b.mp3` or a recorder's pieces make.

A decoder reads such a file to its first end and reports success. Here the places where another file begins are found by
the container's own sizes (RIFF, AIFF, MP4) or its first bytes (FLAC, Ogg, Matroska, MP3, AMR), so that every part is
decoded by itself, with its own rate, channels and encoder delay.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from moulin.audio.chunks import by_chunks, form_of, is_wav
from moulin.audio.mp4_boxes import boxes, is_mp4
from moulin.audio.part import BinaryFile, Part, found, read_at
from moulin.audio.wav_parts import UNKNOWN_SIZE, wav_parts

_MOST_PARTS = 100_000
_HEAD_BYTES = 16
_ID3V1_BYTES = 128
_MOST_LYRICS_BYTES = 1 << 20  # with pictures' names and six digits of size

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
# A tag, or the frame without sound that has the length and the encoder delay of what follows.
_MP3 = re.compile(
    rb"ID3[\x02-\x04]\x00[\x00\x10\x20\x40\x60\x80\xa0\xc0\xe0][\x00-\x7f]{4}"
    rb"|\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\s\S]{2}(?:\x00{9}|\x00{17}|\x00{32})(?:Xing|Info)"
)


def parts_of(file: BinaryFile) -> list[Part]:
    """The parts of `file` in order, at least one; each begins where a decoder would find the beginning of a file.

    Raises AudioError for a header that makes no sense.
    """
    end = file.seek(0, io.SEEK_END)
    head = read_at(file, 0, _HEAD_BYTES)
    parts, form = _files(file, end, head), form_of(head)
    return parts if form is None else _limited([one for part in parts for one in by_chunks(file, part, form)], end)


def _files(file: BinaryFile, end: int, head: bytes) -> list[Part]:
    if is_wav(head):
        return list(wav_parts(file, end))
    if head[:4] == b"FORM" or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return _sized_parts(file, end, head)
    if is_mp4(head):
        return _between(list(_mp4_starts(file, end)), end)
    if head[:4] == b"OggS":
        return _between(list(_ogg_starts(file)), end)
    if head[:3] == b"ID3" or is_mpeg_audio(head):
        end = _before_lyrics(file, end)
        return _between(list(_mp3_starts(file, end)), end)
    for magic, pattern in _BEGINNINGS.items():
        if head.startswith(magic):
            return _between([0, *(at for at, _ in found(file, pattern, (magic,)))], end)
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
    """The first parts; the last of them says what is left out."""
    if len(parts) <= _MOST_PARTS:
        return parts or [Part(0, end)]
    *kept, last = parts[:_MOST_PARTS]
    return [*kept, replace(last, missing_bytes=end - last.end)]


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
    is_cut = size < UNKNOWN_SIZE and at > end + 1
    return [*parts, replace(last, missing_bytes=at - end) if is_cut else last]


def _mp4_starts(file: BinaryFile, end: int) -> Iterator[int]:
    """Beginnings of files among the boxes: another `ftyp` after a `moov` or `mdat`."""
    filled = False
    yield 0
    for box in boxes(file, 0, end):
        if box.kind == b"ftyp" and filled:
            yield box.begin
            filled = False
        filled |= box.kind in (b"moov", b"mdat", b"moof")


def _ogg_starts(file: BinaryFile) -> Iterator[int]:
    """Beginnings of chained streams: a first page (or several, of streams side by side) after one that is none."""
    first_before = False
    for at, page in found(file, _OGG_PAGE, (b"OggS",)):
        first = bool(page[5] & 2)
        if first and not first_before:
            yield at
        first_before = first


def _before_lyrics(file: BinaryFile, end: int) -> int:
    """The end of MPEG audio before a Lyrics3 tag, which FFmpeg takes for damaged audio; `end` where there is none."""
    behind = end - _ID3V1_BYTES if read_at(file, max(end - _ID3V1_BYTES, 0), 3) == b"TAG" else end
    if read_at(file, max(behind - 9, 0), 9) not in (b"LYRICS200", b"LYRICSEND"):
        return end
    begin = max(behind - _MOST_LYRICS_BYTES, 0)
    at = read_at(file, begin, behind - begin).rfind(b"LYRICSBEGIN")
    return begin + at if at >= 0 else end


def _mp3_starts(file: BinaryFile, end: int) -> Iterator[int]:
    yield 0
    clear = 0  # no other beginning before this byte: it lies in a tag or is its first frame
    for at, match in found(file, _MP3, (b"ID3", b"Xing", b"Info")):
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
