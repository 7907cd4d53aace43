"""A limit on how many values a protobuf message holds, checked before it is parsed.

An empty submessage takes two bytes in a file and a hundred in memory, so that a small file could take all of it. The
scan follows tags and lengths only, skips strings and raw data, and so takes no longer for large weights.
"""

from __future__ import annotations

import mmap
from functools import cache
from pathlib import Path
from typing import Any

from moulin.bundle.untrusted_file import expect_regular
from moulin.errors import BundleError

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_DEEPEST = 100


def expect_few_values(file: Path, message: Any, most: int) -> None:
    """Raise BundleError where `file`, read as the protobuf class `message`, holds more than `most` fields, and
    protobuf's DecodeError where it is no such message."""
    from google.protobuf.message import DecodeError

    if not expect_regular(file):
        return
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            values = _values(data, message.DESCRIPTOR, most)
        except IndexError:
            raise DecodeError("a field goes beyond the end") from None
    if values > most:
        raise BundleError(f"Expected at most {most:,} values in {file}, got more", hint="it is no speech recogniser")


def _values(data: mmap.mmap, message: Any, most: int) -> int:
    """The number of fields in `data`, or `most` + 1 for more. Raises IndexError where a field goes beyond the message
    that it is in, and for deeper nesting than protobuf reads."""
    count = 0
    outer: list[tuple[int, int, Any]] = []
    position, end, inner = 0, len(data), _messages(message)
    while True:
        while position == end:
            if not outer:
                return count
            position, end, inner = outer.pop()
        count += 1
        if count > most:
            return count
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == _VARINT:
            _, position = _varint(data, position)
        elif wire == _BYTES:
            length, position = _varint(data, position)
            field = inner.get(tag >> 3)
            if field is not None and position + length <= end and len(outer) < _DEEPEST:
                outer.append((position + length, end, inner))
                end, inner = position + length, _messages(field)
                continue
            if field is not None:
                raise IndexError
            position += length
        elif wire in (_EIGHT, _FOUR):
            position += 8 if wire == _EIGHT else 4
        else:  # groups, which no format read here has
            raise IndexError
        if position > end:
            raise IndexError


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise IndexError


@cache
def _messages(message: Any) -> dict[int, Any]:
    """The fields of the descriptor `message` that hold messages, by number."""
    return {field.number: field.message_type for field in message.fields if field.message_type is not None}
