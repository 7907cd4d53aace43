"""Files that consist of chunks (WAV, AIFF, CAF, W64), also those with several chunks of samples.

One chunk of samples is the rule. Some recorders write one for each take, or an empty one before the right one;
libsndfile reads the last and FFmpeg the first, so each becomes a part of its own, in which the others are hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from moulin.audio.part import BinaryFile, Part, PartView, read_at
from moulin.errors import AudioError

_MOST_PARTS = 1000
"""Chunks of samples that are decoded one by one: opening a decoder takes about a millisecond."""

_MOST_CHUNKS = 100_000
_HIDDEN = b"junk"
"""The name of chunks without meaning. In a W64 file libsndfile takes what is in an unknown one for chunks."""
_LONG_SIZE = 0xFFFFFFFF
"""What RF64 has for a size that stands in its chunk `ds64`."""


@dataclass(frozen=True, slots=True)
class ChunkForm:
    """How chunks are written: a name, the size of the content, the content, bytes that fill it up."""

    begin: int
    """The position of the first chunk."""
    samples: bytes
    """The name of a chunk of samples."""
    size_bytes: int
    order: Literal["little", "big"] = "little"
    multiple: int = 2
    """Content is filled up to a multiple of so many bytes."""
    counts_header: bool = False
    """Whether a size includes the name and itself."""
    empty_bytes: int = 0
    """The size of the content of a chunk without samples."""

    @property
    def header_bytes(self) -> int:
        return len(self.samples) + self.size_bytes

    def hidden(self, content_bytes: int) -> bytes | None:
        """The header of a chunk that decoders pass over; None where the size is too large for it."""
        size = content_bytes + (self.header_bytes if self.counts_header else 0)
        if size >> 8 * self.size_bytes:
            return None
        return _HIDDEN + self.samples[4:] + size.to_bytes(self.size_bytes, self.order)


WAV = ChunkForm(12, b"data", 4)
_FORMS: dict[bytes, ChunkForm] = {
    b"FORM": ChunkForm(12, b"SSND", 4, "big", empty_bytes=8),
    b"caff": ChunkForm(8, b"data", 8, "big", 1, empty_bytes=4),
    b"riff": ChunkForm(40, b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a"), 8, "little", 8, counts_header=True),
}


@dataclass(frozen=True, slots=True)
class Chunk:
    name: bytes
    at: int
    """The position of its name."""
    content: int
    size: int
    """Of the content, as its header says: it may lie beyond the file's end."""
    is_long: bool = False
    """Whether the size stands in RF64's chunk `ds64`."""


def form_of(head: bytes) -> ChunkForm | None:
    """The form of the chunks of a file that begins with `head`; None for what has no chunks of samples."""
    return WAV if is_wav(head) else _FORMS.get(head[:4])


def is_wav(head: bytes) -> bool:
    return head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE"


def chunks(file: BinaryFile, form: ChunkForm, begin: int, end: int) -> Iterator[Chunk]:
    """The chunks of the file at `begin`. Raises AudioError for more of them than any program writes."""
    at, long_size, count = begin + form.begin, None, 0
    while at + form.header_bytes <= end:
        if (count := count + 1) > _MOST_CHUNKS:
            raise AudioError(f"The file consists of more than {_MOST_CHUNKS:,} chunks, expected a header and samples")
        header = read_at(file, at, form.header_bytes)
        name, content = header[: len(form.samples)], at + form.header_bytes
        size = int.from_bytes(header[len(form.samples) :], form.order)
        if form.counts_header:
            size = max(size - form.header_bytes, 0)
        is_long = long_size is not None and name == form.samples and size == _LONG_SIZE
        if is_long:
            size = long_size or 0
        yield Chunk(name, at, content, size, is_long)
        if name == b"ds64":
            long_size = int.from_bytes(read_at(file, content + 8, 8), "little")
        at = content + -(-size // form.multiple) * form.multiple


def by_chunks(file: BinaryFile, part: Part, form: ChunkForm) -> list[Part]:
    """`part` once for each chunk of samples, in which the others are hidden. Raises AudioError."""
    view = PartView(file, part)  # with the sizes that are corrected
    found = [chunk for chunk in chunks(view, form, 0, part.end - part.begin) if chunk.name == form.samples]
    if len(found) < 2:
        return [part]
    filled = [number for number, chunk in enumerate(found) if chunk.size > form.empty_bytes] or [0]
    own, unread = filled[:_MOST_PARTS], filled[_MOST_PARTS:]
    parts = [_alone(form, found, number, part) for number in own]
    missing = part.end - part.begin - found[unread[0]].at if unread else part.missing_bytes
    return [*parts[:-1], replace(parts[-1], missing_bytes=missing)]


def _alone(form: ChunkForm, found: Sequence[Chunk], number: int, part: Part) -> Part:
    """`part` to the end of one of its chunks of samples, in which those before it are one chunk without meaning."""
    own = found[number]
    end = part.begin + found[number + 1].at if number + 1 < len(found) else part.end
    hidden = form.hidden(max(own.at - found[0].at - form.header_bytes, 0))
    if hidden is not None:
        changes = {found[0].at: hidden} if number else {}
    else:
        changes = {chunk.at: _HIDDEN for chunk in found[: min(number, _MOST_PARTS)]}
    moved = {part.begin + at: change for at, change in changes.items()}
    return replace(part, end=end, changes=part.changes | moved, missing_bytes=0)
