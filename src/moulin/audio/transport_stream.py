"""Packets that an MPEG transport stream lost on its way: their counters tell, and decoders do not.

ISO/IEC 13818-1, 2.4.3: the last four bits of a packet's fourth byte count the packets of its track.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from moulin.audio.part import BinaryFile, read_at

_SYNC = ord("G")
_PACKET_BYTES = (188, 192, 204)
"""From one packet to the next: alone, with four bytes before each (Blu-ray), with sixteen behind."""

_TABLE = 0
"""The track number (PID) of the table that a stream begins with."""

_HEADER_BYTES = 16
"""What is looked at of each packet: its header, and content by which one that was sent twice is known."""

_PACKETS_AT_ONCE = 5000
_IN_A_ROW = 3


def interruptions(file: BinaryFile, track: int) -> int:
    """The places in `file` at which packets of the track with that number (PID) are missing.

    Counters that begin anew behind a new table are no such place: there another stream begins.
    """
    headers = np.concatenate([np.zeros((0, _HEADER_BYTES), np.uint8), *_headers(file)])
    numbers = (headers[:, 1].astype(int) & 0x1F) << 8 | headers[:, 2]
    counters = headers[:, 3].astype(int) & 0x0F
    with_content = headers[:, 3] & 0x10 > 0
    announced = (headers[:, 3] & 0x20 > 0) & (headers[:, 4] > 0) & (headers[:, 5] & 0x80 > 0)
    first_tables = np.flatnonzero((numbers == _TABLE) & (counters == 0))
    at = np.flatnonzero((numbers == track) & with_content)
    is_next = np.diff(counters[at]) % 16 == 1
    is_repeated = (headers[at[1:]] == headers[at[:-1]]).all(axis=1)
    jumps = ~(is_next | is_repeated | announced[at[1:]])
    begin, end = at[:-1][jumps], at[1:][jumps]
    begins_anew = (counters[end] == 0) & (np.searchsorted(first_tables, begin) < np.searchsorted(first_tables, end))
    return int(np.count_nonzero(~begins_anew))


def _headers(file: BinaryFile) -> Iterator[NDArray[np.uint8]]:
    """The first bytes [n, 16] of all packets, some at once."""
    at, size = _found(file, 0)
    while size:
        data = read_at(file, at, _PACKETS_AT_ONCE * size + _HEADER_BYTES)
        count = (len(data) - _HEADER_BYTES) // size + 1 if len(data) >= _HEADER_BYTES else 0
        rows = np.lib.stride_tricks.as_strided(
            np.frombuffer(data, np.uint8), (max(count, 0), _HEADER_BYTES), (size, 1), writeable=False
        )
        lost = np.flatnonzero(rows[:, 0] != _SYNC)
        good = int(lost[0]) if len(lost) else min(len(rows), _PACKETS_AT_ONCE)
        yield rows[:good].copy()
        at += good * size
        if len(lost):
            at, size = _found(file, at)
        elif good < _PACKETS_AT_ONCE:
            return


def _found(file: BinaryFile, begin: int) -> tuple[int, int]:
    """The first packet from `begin` on and the length of packets there; a length of 0 where there is none near."""
    head = np.frombuffer(read_at(file, begin, 4096), np.uint8)
    for at in np.flatnonzero(head == _SYNC):
        for size in _PACKET_BYTES:
            in_a_row = head[at::size][:_IN_A_ROW]
            if len(in_a_row) == _IN_A_ROW and (in_a_row == _SYNC).all():
                return begin + int(at), size
    return begin, 0
