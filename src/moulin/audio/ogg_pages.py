"""Pauses and lost pages of an Ogg stream at their places.

A page has one time stamp, the end of its last packet (RFC 3533, section 6). FFmpeg gives it to the first packet behind
the page, and that of Vorbis to the second one within, so that what is missing seems to be missing there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from moulin.audio.faults import Faults
from moulin.audio.part import BinaryFile, read_at
from moulin.audio.vorbis_blocks import VorbisBlocks

_HEADER_BYTES = 27
_MOST_SEGMENTS = 255
_SHORT = 0.75
"""The share of the next page's samples, below which a page was closed early."""


@dataclass(frozen=True, slots=True)
class _Page:
    """The header of a page (RFC 3533, section 6)."""

    end_time: int
    stream: bytes
    number: int
    end: int

    @classmethod
    def at(cls, file: BinaryFile, begin: int) -> _Page | None:
        """The page that begins there; the file's position is kept, for who reads on from it."""
        position = file.tell()
        header = read_at(file, begin, _HEADER_BYTES + _MOST_SEGMENTS)
        file.seek(position)
        if header[:4] != b"OggS" or len(header) < _HEADER_BYTES:
            return None
        content = _HEADER_BYTES + header[26]
        return cls(
            int.from_bytes(header[6:14], "little", signed=True),
            header[14:18],
            int.from_bytes(header[18:22], "little"),
            begin + content + sum(header[_HEADER_BYTES:content]),
        )


class OggPages:
    """Moves packets of one track to their times, page by page."""

    def __init__(self, file: BinaryFile, unit_sec: float, faults: Faults, headers: bytes = b"") -> None:
        """`file` is what the packets are read from; times are counted in `unit_sec`. Lost pages go to `faults`.
        `headers` are those of the codec."""
        self._file, self._unit_sec, self._faults = file, unit_sec, faults
        self._blocks = VorbisBlocks(headers)
        self._before: int | None = None
        self._samples_before = 0
        self._longest = 0
        """The most samples of a packet so far: FFmpeg's times of Vorbis, whose packets differ, are right to one."""
        self._offset: int | None = None
        """How much later a page's time is than FFmpeg's for the same place (Opus: by the encoder's delay)."""

    def timed(self, packets: Iterator[Any]) -> Iterator[Any]:
        """`packets` (PyAV's) with the right times; those of a page are held back until the next page is there."""
        page: list[Any] = []
        try:
            for packet in packets:
                if page and packet.pos != page[0].pos:
                    self._place(page, packet.pts)
                    yield from page
                    page = []
                page.append(packet)
        except Exception:
            yield from page
            raise
        yield from page

    def _place(self, page: Sequence[Any], following: int | None) -> None:
        """Move packets of `page` by what is missing before or within it; `following` is the time of the next page."""
        begin, time = page[0].pos, page[0].pts
        durations = [self._blocks.samples(packet.duration or 0) for packet in page]
        if following is None:  # FFmpeg makes the last packet of all as long as its page's time stamp says
            durations[-1] = min(durations[-1], max(durations[:-1], default=0))
        samples, end = sum(durations), following if following is not None else self._end(begin)
        if self._offset is None and following is not None and (header := _Page.at(self._file, begin)) is not None:
            self._offset = header.end_time - following
        self._longest = max(self._longest, *durations)
        if end is not None and time is not None and (late := end - time - samples) > self._longest:
            is_lost = self._is_lost_before(begin)
            if is_lost:
                self._faults.damaged(f"{late * self._unit_sec:.3f} s are missing")
            # FFmpeg closes a page with the first packet behind a pause. Others close it before the pause, early.
            is_before = is_lost or self._samples_before < _SHORT * samples
            for packet, duration in zip(page, durations, strict=True):
                packet.pts = packet.dts = time + (late if is_before or packet is page[-1] else 0)
                time += duration
        self._before, self._samples_before = begin, samples

    def _end(self, begin: int) -> int | None:
        """The end of the last page of all, by its own time stamp."""
        header = _Page.at(self._file, begin)
        return None if header is None or self._offset is None else header.end_time - self._offset

    def _is_lost_before(self, begin: int) -> bool:
        """Whether a page of the stream is missing between that of the packets before and the one at `begin`."""
        page = _Page.at(self._file, begin)
        before = None if self._before is None else _Page.at(self._file, self._before)
        if page is None or before is None:
            return False
        number, at = before.number, before.end
        while at < begin:  # pages of other tracks, and those in the middle of a long packet
            between = _Page.at(self._file, at)
            if between is None:
                return True
            if between.stream == page.stream:
                if between.number != number + 1:
                    return True
                number += 1
            at = between.end
        return page.number != number + 1
