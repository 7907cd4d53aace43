"""A part of a file as a file of its own: one of several that lie one after another, or one with another header."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

BinaryFile = io.RawIOBase | io.BytesIO
"""A seekable binary file: an open one, one in memory, or a view of a part of either."""

_READ_BYTES = 1 << 20
_OVERLAP_BYTES = 256


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
        end = begin + len(data)
        for place, replacement in self._part.changes.items():
            first, last = max(place, begin), min(place + len(replacement), end)
            if first < last:
                data[first - begin : last - begin] = replacement[first - place : last - place]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def read_at(file: BinaryFile, at: int, size: int) -> bytes:
    """Up to `size` bytes from position `at` on."""
    file.seek(at)
    return file.read(size) or b""


def found(
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
