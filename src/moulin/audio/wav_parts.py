"""Several WAV files in one file, and WAV files whose header has a wrong length.

A size of the samples that is too small, or that nobody knew, is corrected: samples last to the next file or to the end,
but for chunks and tags there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from moulin.audio.chunks import WAV, Chunk, chunks, is_wav
from moulin.audio.part import BinaryFile, Part, found, read_at

_WAV = re.compile(rb"(?:RIFF[\s\S]{4}WAVE(?:fmt |JUNK|bext|LIST)|(?:RF64|BW64)[\s\S]{4}WAVEds64)")
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
_CHUNKS = (
    *(b"data", b"LIST", b"fact", b"fmt ", b"JUNK", b"junk", b"PAD ", b"FLLR", b"bext", b"iXML", b"id3 ", b"ID3 "),
    *(
        b"cue ",
        b"smpl",
        b"inst",
        b"plst",
        b"PEAK",
        b"afsp",
        b"LGWV",
        b"levl",
        b"chna",
        b"axml",
        b"cart",
        b"DISP",
        b"_PMX",
    ),
)
"""Names of chunks as they follow samples."""

UNKNOWN_SIZE = 0x7FFFF000
"""Sizes from here on are written by programs that cannot know the size, such as FFmpeg into a pipe."""
_UNKNOWN_LONG_SIZE = 1 << 56
_PADDING_BYTES = 1
"""Some writers count the byte that fills up an odd number, and leave it out."""


def wav_parts(file: BinaryFile, end: int) -> Iterator[Part]:
    """The WAV files in `file`. Raises AudioError."""
    begin = 0
    while begin < end:
        part, begin = _part(file, begin, end)
        yield part


@dataclass(frozen=True, slots=True)
class _Samples:
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


def _part(file: BinaryFile, begin: int, end: int) -> tuple[Part, int]:
    """The WAV file at `begin`, and where the next one begins."""
    samples = _samples(file, begin, end)
    if samples is None:
        return Part(begin, end), end
    declared = samples.declared
    if declared == 0:
        return Part(begin, samples.begin), _behind(file, samples.begin, end) or end
    if declared is not None and samples.begin + declared <= end:
        # A few writers leave out the byte that fills up an odd number.
        for stop in {samples.begin + declared + declared % 2, samples.begin + declared}:
            following = _behind(file, stop, end)
            if following is not None:
                return Part(begin, following), following
    following = next((at for at, _ in found(file, _WAV, (b"WAVE",), samples.begin)), end)
    missing = samples.begin + (declared or 0) - end if following == end else 0
    missing = missing if missing > _PADDING_BYTES else 0
    return Part(begin, following, samples.sized(following - samples.begin), missing), following


def _samples(file: BinaryFile, begin: int, end: int) -> _Samples | None:
    """The first samples of the WAV or RF64 file at `begin`; None where there is no chunk `data`."""
    empty: _Samples | None = None
    long_at = 0
    for chunk in chunks(file, WAV, begin, end):
        if chunk.name == b"ds64":
            long_at = chunk.content
        if chunk.name != b"data":
            continue
        if chunk.size:
            return _of(chunk, begin, long_at)
        if read_at(file, chunk.content, 4) not in _CHUNKS:  # a size that was never written
            return _of(chunk, begin, long_at, is_known=False)
        empty = empty or _of(chunk, begin, long_at)
    return empty


def _of(chunk: Chunk, begin: int, long_at: int, *, is_known: bool = True) -> _Samples:
    is_known &= chunk.size < (_UNKNOWN_LONG_SIZE if chunk.is_long else UNKNOWN_SIZE)
    declared = chunk.size if is_known else None
    if chunk.is_long:
        return _Samples(chunk.content, declared, (long_at + 8, long_at), 8)
    return _Samples(chunk.content, declared, (chunk.at + 4, begin + 4), 4)


def _behind(file: BinaryFile, at: int, end: int) -> int | None:
    """The end of a WAV file, given the end `at` of its samples: the begin of the next file, or `end`. None where more
    samples follow."""
    is_chunk = False
    while at + 8 < end:
        header = read_at(file, at, 12)
        if is_wav(header):
            return at
        if header.startswith(_TAGS):
            return end
        size = int.from_bytes(header[4:8], "little")
        if not all(0x20 <= byte < 0x7F for byte in header[:4]) or at + 8 + size > end + 1:
            return end if is_chunk else None  # behind a chunk, a wrong size is less strange than sound
        is_chunk = True
        at += 8 + size + size % 2
    return end
