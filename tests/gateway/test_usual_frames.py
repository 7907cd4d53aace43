"""Cutting frames, held against the general parser of websockets."""

from __future__ import annotations

import random

import pytest
from websockets.frames import Frame, Opcode

from moulin.gateway.usual_frames import FrameCutter, Other, text_frame

from .test_websocket_frames import PROTOCOL_ERRORS, frame

LIMIT = 1 << 20


def cut(data: bytes, piece: int | None = None) -> list[tuple[bool, bytes] | bytes]:
    cutter = FrameCutter(LIMIT)
    found = []
    for begin in range(0, len(data), piece or len(data)):
        found += cutter.cut(data[begin : begin + (piece or len(data))])
    return [each.data if isinstance(each, Other) else each for each in found]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 4096, 65535, 65536, LIMIT])
@pytest.mark.parametrize("piece", [None, 1, 3, 70_000])
def test_usual_ones(size: int, piece: int | None) -> None:
    if size == LIMIT and piece in (1, 3):
        piece = 1000
    content = random.Random(size).randbytes(size)
    data = Frame(Opcode.BINARY, content).serialize(mask=True) + Frame(Opcode.TEXT, b"x").serialize(mask=True)
    assert cut(data, piece) == [(False, content), (True, b"x")]


def test_others_are_given_whole() -> None:
    fragments = [frame(1, b"a", fin=False), frame(9, b"?"), frame(0, b"b", fin=False), frame(0, b"c")]
    data = b"".join(fragments)
    for piece in (None, 1):
        assert cut(data + frame(2, b"x"), piece) == [*fragments, (False, b"x")]


def test_a_message_within_a_message_is_for_the_other_parser() -> None:
    parts = [frame(1, b"a", fin=False), frame(2, b"b")]
    assert cut(b"".join(parts)) == parts


@pytest.mark.parametrize("what", PROTOCOL_ERRORS)
def test_everything_invalid_comes_to_the_other_parser(what: str) -> None:
    invalid = PROTOCOL_ERRORS[what]
    given = b"".join(each for each in cut(frame(2, b"x") + invalid)[1:] if isinstance(each, bytes))
    assert given == invalid


def test_what_is_too_long_is_not_waited_for() -> None:
    head = frame(2, bytes(LIMIT + 1))[:14]
    assert cut(head) == [head]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_text_frames(size: int) -> None:
    assert text_frame(b"x" * size) == Frame(Opcode.TEXT, b"x" * size).serialize(mask=False)
