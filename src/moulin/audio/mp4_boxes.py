"""Boxes of MP4 and QuickTime files, and the pauses within their edit lists (ISO/IEC 14496-12, 8.6.6).

An edit without media is a time without sound. FFmpeg knows it before the first media; between two it plays the media
from its beginning instead. So such edits are taken out of the list, and their places are told to who keeps the time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from moulin.audio.part import BinaryFile, Part, PartView, read_at

_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")
_MOST_EDITS = 100_000


class Box(NamedTuple):
    kind: bytes
    begin: int
    content: int
    end: int


def is_mp4(head: bytes) -> bool:
    """Whether a file that begins with `head` has such boxes."""
    return head[4:8] in _FIRST_BOXES


def boxes(file: BinaryFile, begin: int, end: int) -> Iterator[Box]:
    """The boxes in bytes [begin, end), as far as their sizes make sense. One that is larger than the rest ends with it:
    those within it would be read again behind it, and by every other one of that size."""
    while begin + 8 <= end:
        header = read_at(file, begin, 16)
        size, content = int.from_bytes(header[:4], "big"), begin + 8
        if size == 1:
            size, content = int.from_bytes(header[8:16], "big"), begin + 16
        if size == 0:  # the last box, to the end
            size = end - begin
        if size < content - begin:
            return
        yield Box(header[4:8], begin, content, min(begin + size, end))
        begin += size


@dataclass(frozen=True, slots=True)
class EditList:
    """A track that is played in several pieces, on a time axis without the pauses between them."""

    end_sec: float
    pauses: tuple[tuple[float, float], ...] = ()
    """Where one is, and how long."""


@dataclass(slots=True)
class EditedFile:
    """A file without the edits that FFmpeg plays wrong, and what they said."""

    file: BinaryFile
    edits: Mapping[int, EditList] = field(default_factory=dict)
    """By track ID; only of tracks with several edits."""


def edited(file: BinaryFile) -> EditedFile:
    """`file` with its edit lists; itself where it has none of several edits."""
    end = file.seek(0, io.SEEK_END)
    if not is_mp4(read_at(file, 0, 8)):
        return EditedFile(file)
    edits: dict[int, EditList] = {}
    changes: dict[int, bytes] = {}
    moov = next(_within(file, Box(b"", 0, 0, end), b"moov"), None)
    if moov is None:
        return EditedFile(file)
    units = next((_units(file, box) for box in _within(file, moov, b"mvhd")), 0)
    for track in _within(file, moov, b"trak"):
        number = next((_track_id(file, box) for box in _within(file, track, b"tkhd")), 0)
        for box in _within(file, track, b"edts", b"elst"):
            _read(file, box, number, units, edits, changes)
    return EditedFile(PartView(file, Part(0, end, changes)) if changes else file, edits)


def _within(file: BinaryFile, box: Box, kind: bytes, *path: bytes) -> Iterator[Box]:
    for inner in boxes(file, box.content, box.end):
        if inner.kind == kind:
            yield from _within(file, inner, *path) if path else (inner,)


def _units(file: BinaryFile, mvhd: Box) -> int:
    """The units of time in a second, by which edits are measured."""
    head = read_at(file, mvhd.content, 24)
    return int.from_bytes(head[20:24] if head[:1] == b"\1" else head[12:16], "big")


def _track_id(file: BinaryFile, tkhd: Box) -> int:
    head = read_at(file, tkhd.content, 24)
    return int.from_bytes(head[20:24] if head[:1] == b"\1" else head[12:16], "big")


def _read(
    file: BinaryFile, elst: Box, track: int, units: int, edits: dict[int, EditList], changes: dict[int, bytes]
) -> None:
    """Add the edit list of a track to `edits`, and to `changes` what takes its pauses out."""
    head = read_at(file, elst.content, 8)
    number_bytes = 8 if head[:1] == b"\1" else 4
    entry_bytes = 2 * number_bytes + 4
    count = min(int.from_bytes(head[4:8], "big"), (elst.end - elst.content - 8) // entry_bytes, _MOST_EDITS)
    if count < 2 or not units:
        return
    data = read_at(file, elst.content + 8, count * entry_bytes)
    kept, pauses = [], []
    at, has_media = 0, False
    for begin in range(0, len(data) // entry_bytes * entry_bytes, entry_bytes):
        entry = data[begin : begin + entry_bytes]
        length = int.from_bytes(entry[:number_bytes], "big")
        is_empty = int.from_bytes(entry[number_bytes : 2 * number_bytes], "big", signed=True) < 0
        if is_empty and has_media:
            pauses.append((at / units, length / units))
            continue
        has_media |= not is_empty
        kept.append(entry)
        at += length
    end_sec = at / units
    edits[track] = EditList(end_sec, tuple(pause for pause in pauses if pause[0] < end_sec))
    if pauses:
        content = head[:4] + len(kept).to_bytes(4, "big") + b"".join(kept)
        free = elst.end - elst.content - len(content)
        box = (8 + len(content)).to_bytes(4, "big") + b"elst" + content
        changes[elst.content - 8] = box + free.to_bytes(4, "big") + b"free"
