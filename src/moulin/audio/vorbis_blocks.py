"""Lengths of Vorbis packets, of which FFmpeg says too little where a short block follows a long one."""

from __future__ import annotations

_NAME = b"\1vorbis"
_SIZES_AT = 28


class VorbisBlocks:
    """The samples of each packet of a stream. A packet is half of its block and half of the one before, of two sizes
    (Vorbis I, 4.3.8); FFmpeg takes the one before a short block for another short one."""

    def __init__(self, headers: bytes) -> None:
        """`headers` has the stream's identification header (Vorbis I, 4.2.2); without it lengths stay as they are."""
        at = headers.find(_NAME)
        sizes = headers[at + _SIZES_AT] if at >= 0 and len(headers) > at + _SIZES_AT else 0
        self._short, self._long = 1 << (sizes & 15), 1 << (sizes >> 4)
        self._before: int | None = None
        """The size of the block before."""

    def samples(self, said: int) -> int:
        """The length of the next packet, of which FFmpeg says `said`; right where FFmpeg is."""
        mixed = (self._short + self._long) // 4
        if said not in (self._short // 2, mixed, self._long // 2):  # the last one, which is cut, or no Vorbis
            return said
        before = self._before
        if said == self._short // 2:
            self._before = self._short
        elif said == self._long // 2:
            self._before = self._long
        else:
            self._before = self._short if before == self._long else self._long
            return said
        return said if before is None else (before + self._before) // 4
