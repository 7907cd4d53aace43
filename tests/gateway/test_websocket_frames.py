"""Frames of RFC 6455 as they may and may not come, over real connections to an application that echoes messages.

Frames are written and read here by hand, and by aiohttp's client: the server's own library is neither.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .test_websocket_protocol import HANDSHAKE, echo, serving, slow_echo

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
LIMIT = 1 << 20
"""Of a message, in these tests."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(echo, ws_max_size=LIMIT) as at:
        yield at


@pytest.fixture(scope="module")
def slow_port() -> Iterator[int]:
    with serving(slow_echo, ws_max_size=LIMIT) as at:
        yield at


def frame(
    opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\x81\x02\xf3\x04"
) -> bytes:
    marked = 0 if mask is None else 0x80
    if len(data) < 126:
        length = bytes([marked | len(data)])
    elif len(data) < 1 << 16:
        length = bytes([marked | 126]) + struct.pack("!H", len(data))
    else:
        length = bytes([marked | 127]) + struct.pack("!Q", len(data))
    if mask is not None:
        data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
    return bytes([fin << 7 | rsv << 4 | opcode]) + length + (mask or b"") + data


@dataclass
class Peer:
    """A connection that has been upgraded."""

    connection: socket.socket
    received: bytearray = field(default_factory=bytearray)

    def send(self, data: bytes, *, at_once: int | None = None) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            for begin in range(0, len(data), at_once or len(data) or 1):
                self.connection.sendall(data[begin : begin + (at_once or len(data))])

    def read(self) -> tuple[int, bytes] | None:
        """The next frame's first byte and content; None at the end of the connection."""
        head = self._exactly(2)
        if head is None:
            return None
        assert head[1] < 128, "a server masks nothing"
        length = head[1]
        if length == 126:
            length = int.from_bytes(self._exactly(2) or b"", "big")
        elif length == 127:
            length = int.from_bytes(self._exactly(8) or b"", "big")
        return head[0], self._exactly(length) or b""

    def closed_with(self) -> int:
        """The code of the close frame that comes next, with nothing behind it."""
        got = self.read()
        assert got is not None
        assert got[0] == 0x80 | CLOSE, got
        assert self.read() is None
        return int.from_bytes(got[1][:2], "big")

    def _exactly(self, count: int) -> bytes | None:
        while len(self.received) < count:
            try:
                piece = self.connection.recv(1 << 16)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return None
            self.received += piece
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken


@pytest.fixture
def peer(port: int) -> Iterator[Peer]:
    with connected(port) as opened:
        yield opened


class connected:
    def __init__(self, port: int) -> None:
        self._port = port

    def __enter__(self) -> Peer:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(HANDSHAKE)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(1)
        assert answer.startswith(b"HTTP/1.1 101 ")
        self._peer = Peer(connection)
        return self._peer

    def __exit__(self, *_: object) -> None:
        self._peer.connection.close()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, LIMIT])
def test_lengths(peer: Peer, size: int) -> None:
    content = random.Random(size).randbytes(size)
    peer.send(frame(BINARY, content))
    assert peer.read() == (0x80 | BINARY, content)


def test_a_byte_at_a_time(peer: Peer) -> None:
    content = random.Random(0).randbytes(300)
    peer.send(frame(TEXT, "wörter".encode()) + frame(BINARY, content) + frame(PING, b"?"), at_once=1)
    got = sorted(filter(None, (peer.read() for _ in range(3))))
    assert got == [(0x80 | TEXT, "wörter".encode()), (0x80 | BINARY, content), (0x80 | PONG, b"?")]


def test_many_frames_at_once_come_back_in_order(peer: Peer) -> None:
    peer.send(b"".join(frame(BINARY, bytes([number])) for number in range(200)))
    assert [peer.read() for _ in range(200)] == [(0x80 | BINARY, bytes([number])) for number in range(200)]


def test_control_frames_between_fragments(peer: Peer) -> None:
    peer.send(frame(TEXT, b"a", fin=False))
    peer.send(frame(PING, b"one"))
    assert peer.read() == (0x80 | PONG, b"one")
    peer.send(frame(CONT, b"b", fin=False) + frame(PONG, b"unasked") + frame(PING) + frame(CONT, b"c"))
    assert peer.read() == (0x80 | PONG, b"")
    assert peer.read() == (0x80 | TEXT, b"abc")


@pytest.mark.parametrize("content", [b"", bytes(125)])
def test_pongs_have_what_their_pings_had(peer: Peer, content: bytes) -> None:
    peer.send(frame(PING, content))
    assert peer.read() == (0x80 | PONG, content)


PROTOCOL_ERRORS = {
    "unmasked": frame(BINARY, b"x", mask=None),
    **{f"rsv {bits}": frame(TEXT, b"x", rsv=bits) for bits in range(1, 8)},
    **{f"opcode {opcode}": frame(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a long ping": frame(PING, bytes(126)),
    "a ping in fragments": frame(PING, b"x", fin=False),
    "a close in fragments": frame(CLOSE, b"", fin=False),
    "nothing to continue": frame(CONT, b"x"),
    "continued, ended and continued": frame(TEXT, b"x", fin=False) + frame(CONT, b"y") + frame(CONT, b"z"),
    "a message in a message": frame(TEXT, b"x", fin=False) + frame(BINARY, b"y"),
    "half a code": frame(CLOSE, b"\x03"),
    "a code that may not be sent": frame(CLOSE, struct.pack("!H", 1005)),
    "no code": frame(CLOSE, struct.pack("!H", 999)),
}


@pytest.mark.parametrize("what", PROTOCOL_ERRORS)
@pytest.mark.parametrize("at_once", [None, 1])
def test_protocol_errors(peer: Peer, what: str, at_once: int | None) -> None:
    peer.send(PROTOCOL_ERRORS[what], at_once=at_once)
    got = peer.read()
    if got == (0x80 | TEXT, b"xy"):
        got = peer.read()
    assert got is not None
    assert (got[0], int.from_bytes(got[1][:2], "big")) == (0x80 | CLOSE, 1002)
    assert peer.read() is None


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"\xed\xa0\x80"),  # half of a surrogate pair
        frame(TEXT, b"\xf4\x90\x80\x80"),  # beyond Unicode
        frame(TEXT, b"\xc0\xaf"),  # a longer form than need be
        frame(TEXT, "ä".encode()[:1]),
        frame(TEXT, "ä".encode()[:1], fin=False) + frame(CONT, b"x"),
        frame(CLOSE, struct.pack("!H", 1000) + b"\xff"),
    ],
)
def test_text_that_is_none(peer: Peer, data: bytes) -> None:
    peer.send(data)
    assert peer.closed_with() == 1007


@pytest.mark.parametrize(
    "data",
    [
        frame(BINARY, bytes(LIMIT + 1))[:14],  # its size is enough
        bytes([0x82, 0xFF]) + b"\xff" * 8 + bytes(4),
        bytes([0x82, 0xFF]) + b"\x7f" + b"\xff" * 7 + bytes(4),
        frame(BINARY, bytes(LIMIT - 10), fin=False) + frame(CONT, bytes(11)),
    ],
)
def test_a_message_that_is_too_long(peer: Peer, data: bytes) -> None:
    peer.send(data)
    assert peer.closed_with() in (1009, 1002)  # the second for a length that no frame may have


@pytest.mark.parametrize("content", [b"", struct.pack("!H", 1000), struct.pack("!H", 1001) + b"bye", b"\x0f\xa0"])
def test_a_close_comes_back(peer: Peer, content: bytes) -> None:
    peer.send(frame(CLOSE, content) + frame(TEXT, b"too late"))
    got = peer.read()
    assert got is not None
    assert (got[0], got[1][:2]) == (0x80 | CLOSE, content[:2])
    assert peer.read() is None


@pytest.mark.parametrize("sent", [b"", frame(BINARY, b"x" * 300)[:9], frame(TEXT, b"x", fin=False)])
def test_a_half_closed_connection_is_closed(peer: Peer, sent: bytes) -> None:
    peer.send(sent)
    peer.connection.shutdown(socket.SHUT_WR)
    assert peer.read() is None


def test_a_reset_connection_harms_no_other(port: int) -> None:
    for sent in (b"", frame(BINARY, b"x" * 300)[:9], frame(TEXT, b"x"), frame(CLOSE)):
        with connected(port) as reset:
            reset.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            reset.send(sent)
    with connected(port) as other:
        other.send(frame(TEXT, b"here"))
        assert other.read() == (0x80 | TEXT, b"here")


def test_a_ping_is_answered_while_the_application_works(slow_port: int) -> None:
    with connected(slow_port) as peer:
        peer.send(b"".join(frame(BINARY, bytes([number])) for number in range(30)) + frame(PING, b"there?"))
        echoes = 0
        while (got := peer.read()) != (0x80 | PONG, b"there?"):
            assert got is not None
            echoes += 1
        assert echoes < 15  # the application sends one each tenth of a second
        peer.send(frame(CLOSE))


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from([TEXT, BINARY]),
        st.lists(st.binary(max_size=200).map(lambda data: data.hex().encode()[:200]), min_size=1, max_size=4),
        st.booleans(),
    ),
    max_size=6,
)


@given(messages=MESSAGES, cuts=st.integers(0, 2**32), mask=st.binary(min_size=4, max_size=4))
@settings(max_examples=60, deadline=None)
def test_whatever_the_pieces(port: int, messages: list[tuple[int, list[bytes], bool]], cuts: int, mask: bytes) -> None:
    """Messages in fragments with pings between them, in pieces of any length: all comes back, each kind in order."""
    sent, pongs, echoed = b"", [], []
    for opcode, parts, pinged in messages:
        for number, part in enumerate(parts):
            sent += frame(CONT if number else opcode, part, fin=number == len(parts) - 1, mask=mask)
            if pinged:
                pongs.append((0x80 | PONG, part[:125]))
                sent += frame(PING, part[:125], mask=mask)
        echoed.append((0x80 | opcode, b"".join(parts)))
    chance = random.Random(cuts)
    with connected(port) as peer:
        while sent:
            size = chance.choice([1, 2, 3, 7, 100, 5000])
            peer.send(sent[:size])
            sent = sent[size:]
        got = [peer.read() for _ in (*pongs, *echoed)]
        assert [each for each in got if each and each[0] == 0x80 | PONG] == pongs
        assert [each for each in got if each and each[0] != 0x80 | PONG] == echoed


def test_aiohttps_client(port: int) -> None:
    async def script() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{port}", max_msg_size=0) as client,
        ):
            await client.ping(b"x")
            for number in range(100):
                content = random.Random(number).randbytes(number**2 * 20)
                await client.send_bytes(content)
                assert await client.receive_bytes() == content
                await client.send_str("ä" * number)
                assert await client.receive_str() == "ä" * number
            assert await client.close(code=4000)
            assert client.close_code == 4000

    asyncio.run(script())
