"""WebSocket frames as nearly all clients send them: a whole message in one frame, masked.

These are cut here, which takes a sixth of the time of a general parser; whatever else comes, and all that is wrong, is
left to one (`websockets`), frame by frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

try:
    from websockets.speedups import apply_mask
except ImportError:  # an installation without its compiled part
    from websockets.utils import apply_mask

_FIN, _MASKED = 0x80, 0x80
_CONT, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_USUAL = {_FIN | _TEXT, _FIN | _BINARY}
_BEGIN = {_TEXT, _BINARY}
_GO_ON = {_CONT, _FIN | _CONT}
_CONTROL = {_FIN | _CLOSE, _FIN | _PING, _FIN | _PONG}
_MOST_CONTROL = 125


@dataclass(frozen=True, slots=True)
class Other:
    """Bytes for the general parser: a frame; or, where they are invalid, all that has come."""

    data: bytes


class FrameCutter:
    """Cuts what a client sends, in pieces of any length, into frames."""

    def __init__(self, most_bytes: int) -> None:
        """A frame with more than `most_bytes` of content is left to the general parser, and so is all behind it."""
        self._most_bytes = most_bytes
        self._waiting, self._wanted = bytearray(), 0
        self._in_fragments = self._given_up = False

    def cut(self, data: bytes) -> Iterator[tuple[bool, bytes] | Other]:
        """The frames that `data` completes: whether it is text, with the content; or bytes for the general parser."""
        if self._given_up:
            yield Other(data)
            return
        if self._waiting:
            self._waiting += data
            if len(self._waiting) < self._wanted:
                return
            data = bytes(self._waiting)
            self._waiting.clear()
        at, size, self._wanted = 0, len(data), 0
        while size - at >= 2:
            head, length, mask_at = data[at], data[at + 1], at + 2
            if length >= _MASKED + 126:
                mask_at = at + (4 if length == _MASKED + 126 else 10)
                if size < mask_at:
                    break
                length = _MASKED + int.from_bytes(data[at + 2 : mask_at], "big")
            length -= _MASKED
            if not self._may_be(head, length):
                self._given_up = True
                yield Other(data[at:])
                return
            begin = mask_at + 4
            if size < begin + length:
                self._wanted = begin + length - at
                break
            if head in _USUAL and not self._in_fragments:
                yield head == _FIN | _TEXT, apply_mask(data[begin : begin + length], data[mask_at:begin])
            else:
                self._in_fragments = head in _BEGIN or (self._in_fragments and head != _FIN | _CONT)
                yield Other(data[at : begin + length])
            at = begin + length
        if at < size:
            self._waiting += memoryview(data)[at:]

    def _may_be(self, head: int, length: int) -> bool:
        """Whether a frame may be so; `length` is negative where it is not masked."""
        if not 0 <= length <= self._most_bytes:
            return False
        if head in _CONTROL:
            return length <= _MOST_CONTROL
        return head in _USUAL or head in _BEGIN or head in _GO_ON


def text_frame(content: bytes) -> bytes:
    """A text message, as a server sends it."""
    size = len(content)
    if size < 126:
        return bytes((_FIN | _TEXT, size)) + content
    if size < 1 << 16:
        return bytes((_FIN | _TEXT, 126)) + size.to_bytes(2, "big") + content
    return bytes((_FIN | _TEXT, 127)) + size.to_bytes(8, "big") + content
