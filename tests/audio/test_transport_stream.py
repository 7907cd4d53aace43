"""Lost packets of MPEG transport streams, made by FFmpeg's muxer and cut by the test."""

from __future__ import annotations

import io
from functools import cache

import av
import numpy as np
import pytest

from moulin.audio.transport_stream import interruptions
from tests.audio.media import heard, media

SIZE = 188


@cache
def stream() -> bytes:
    noise = np.random.default_rng(0).normal(0, 0.05, 5 * 16_000).astype(np.float32)
    return media("mpegts", "aac", noise)


@cache
def track() -> int:
    with av.open(io.BytesIO(stream())) as container:
        return container.streams.audio[0].id


def packets(data: bytes) -> list[bytes]:
    return [data[at : at + SIZE] for at in range(0, len(data), SIZE)]


def is_audio(packet: bytes) -> bool:
    return ((packet[1] & 0x1F) << 8 | packet[2]) == track()


def without(count: int) -> bytes:
    """The stream without some packets of its track in the middle."""
    kept = packets(stream())
    lost = [number for number, packet in enumerate(kept) if is_audio(packet) and number > len(kept) // 2][:count]
    return b"".join(packet for number, packet in enumerate(kept) if number not in lost)


def found(data: bytes) -> int:
    return interruptions(io.BytesIO(data), track())


@pytest.mark.parametrize("count", [1, 2, 7, 15, 17, 40])
def test_lost_packets_are_told(count: int) -> None:
    assert found(without(count)) == 1
    _, warnings = heard(without(count))
    assert len(warnings) == 1
    assert "damaged" in warnings[0]


def test_a_gap_by_lost_packets_is_no_pause() -> None:
    _, warnings = heard(without(17))
    assert warnings == ("the file is damaged or cut short (packets are missing at 1 place); what could be decoded was",)


@pytest.mark.parametrize(
    "data", [stream(), stream() * 2, stream() * 5, b"", b"G" * 100], ids=["one", "two", "five", "none", "no packets"]
)
def test_nothing_is_missing(data: bytes) -> None:
    assert found(data) == 0


@pytest.mark.parametrize(("before", "behind"), [(4, 0), (0, 16)])
def test_longer_packets(before: int, behind: int) -> None:
    def longer(data: bytes) -> bytes:
        return b"".join(bytes(before) + packet + bytes(behind) for packet in packets(data))

    assert found(longer(stream())) == 0
    assert found(longer(without(3))) == 1


@pytest.mark.parametrize("lost_bytes", [400, 1000, 1001])
def test_lost_bytes(lost_bytes: int) -> None:
    middle = len(stream()) // 2 // SIZE * SIZE + 50
    assert found(stream()[:middle] + stream()[middle + lost_bytes :]) == 1


def test_packets_that_come_twice_or_say_why_are_not_missing() -> None:
    kept = packets(stream())
    number = next(number for number, packet in enumerate(kept) if is_audio(packet) and number > len(kept) // 2)
    assert found(b"".join([*kept[:number], kept[number], *kept[number:]])) == 0
    announced = bytes([*kept[number][:3], 0x30 | kept[number][3] + 5 & 15, 1, 0x80, *kept[number][6:]])
    later = b"".join(
        bytes([*packet[:3], packet[3] & 0xF0 | packet[3] + 5 & 15, *packet[4:]]) if is_audio(packet) else packet
        for packet in kept[number + 1 :]
    )
    assert found(b"".join(kept[:number]) + announced + later) == 0
