"""Parsing of an ONNX file without the weights in it, which protobuf would copy into memory.

The file is mapped, and the bytes of large tensors are left out before it is parsed: a graph of a megabyte remains of a
gigabyte.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import onnx

_INLINE_BYTES = 1024
"""Tensors of up to this size stay in the graph."""

# Numbers of fields in onnx.proto.
_GRAPH, _NODE, _INITIALIZER, _ATTRIBUTE, _TENSOR = 7, 1, 5, 5, 5
_RAW_DATA, _EXTERNAL_DATA, _LOCATION = 9, 13, 14
_PATHS: dict[tuple[int, ...], tuple[int, ...]] = {
    (): (_GRAPH,),
    (_GRAPH,): (_NODE, _INITIALIZER),
    (_GRAPH, _NODE): (_ATTRIBUTE,),
    (_GRAPH, _NODE, _ATTRIBUTE): (_TENSOR,),
}
"""The fields of a model that lead to tensors with weights, by the fields that they are in."""
_TENSORS = ((_GRAPH, _INITIALIZER), (_GRAPH, _NODE, _ATTRIBUTE, _TENSOR))


class _Field(NamedTuple):
    """A field of a protobuf message: its number, its own bytes with tag and length, and its content."""

    number: int
    begin: int
    content: int
    end: int


def parse_without_weights(file: Path, *, with_places: bool = False) -> onnx.ModelProto:
    """The model in `file`, one that protobuf can parse, in which large tensors have no data.

    With `with_places` such a tensor has external data instead, whose place is in `file` itself.
    """
    import onnx

    if not file.stat().st_size:  # which cannot be mapped
        return onnx.ModelProto()
    place = file.name if with_places else None
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        model: onnx.ModelProto = onnx.ModelProto.FromString(b"".join(_message(data, 0, len(data), (), place)))
        return model


def _message(data: mmap.mmap, begin: int, end: int, path: tuple[int, ...], name: str | None) -> Iterator[bytes]:
    """The bytes of a message without the weights in it."""
    if path in _TENSORS:
        yield from _tensor(data, begin, end, name)
        return
    leads_on = _PATHS.get(path, ())
    for field in _fields(data, begin, end):
        if field.number not in leads_on or field.end - field.content <= _INLINE_BYTES:
            yield data[field.begin : field.end]
            continue
        inner = b"".join(_message(data, field.content, field.end, (*path, field.number), name))
        yield _bytes_field(field.number, inner)


def _tensor(data: mmap.mmap, begin: int, end: int, name: str | None) -> Iterator[bytes]:
    place = None
    for field in _fields(data, begin, end):
        if field.number == _RAW_DATA and field.end - field.content > _INLINE_BYTES:
            place = field.content
        else:
            yield data[field.begin : field.end]
    if place is not None and name is not None:
        for key, value in (("location", name), ("offset", str(place))):
            yield _bytes_field(_EXTERNAL_DATA, _bytes_field(1, key.encode()) + _bytes_field(2, value.encode()))
        yield _varint(_LOCATION << 3) + _varint(1)  # after a location that the tensor may have: the last one counts


def _fields(data: mmap.mmap, begin: int, end: int) -> Iterator[_Field]:
    position = begin
    while position < end:
        tag, content = _read_varint(data, position)
        wire = tag & 7
        if wire == 2:
            length, content = _read_varint(data, content)
            after = content + length
        elif wire == 0:
            _, after = _read_varint(data, content)
        else:
            after = content + (8 if wire == 1 else 4)
        yield _Field(tag >> 3, position, content, after)
        position = after


def _bytes_field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _read_varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
