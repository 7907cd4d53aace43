"""Frames as no client's library sends them, to an application that echoes messages."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import websockets
from websockets.frames import Frame, Opcode

from moulin.gateway import received_messages, websocket_protocol
from moulin.gateway.event_turns import Turns
from moulin.gateway.received_messages import ReadAhead
from moulin.gateway.websocket_protocol import EXTENSION, MOST_FRAMES, WebSocketProtocol

MOST_AHEAD_BYTES = 2 << 20
"""Instead of the real one, so that less has to be sent."""

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "websocket"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})


async def slow_echo(scope: Any, receive: Any, send: Any) -> None:
    async def slow_receive() -> Any:
        message = await receive()
        await asyncio.sleep(0.6)
        return message

    await echo(scope, slow_receive, send)


@contextmanager
def serving(app: Any, **settings: Any) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    protocol = partial(WebSocketProtocol, ReadAhead(), Turns())
    config = uvicorn.Config(
        app,
        loop="uvloop",
        ws=protocol,  # type: ignore[arg-type]
        log_config=None,
        lifespan="off",
        **settings,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)


async def refusing(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"No", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b" key"})


def test_a_refusal_is_no_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with serving(refusing) as at, socket.create_connection(("127.0.0.1", at), 20) as client:
        client.sendall(HANDSHAKE)
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert answer.endswith(b"\r\n\r\nNo key")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(echo) as at:
        yield at


@pytest.fixture(scope="module")
def impatient() -> Iterator[int]:
    """A server that is slow, and soon takes a client for gone."""
    with serving(slow_echo, ws_ping_interval=0.25, ws_ping_timeout=0.25) as at:
        yield at


def answer(port: int, opcode: Opcode, pieces: list[bytes]) -> bytes:
    """What comes back for one message in `pieces` until the server closes, or until a whole short frame is there."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(HANDSHAKE)
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(1 << 16)
        received = received.partition(b"\r\n\r\n")[2]
        for number, data in enumerate(pieces):
            frame = Frame(Opcode.CONT if number else opcode, data, fin=number == len(pieces) - 1)
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(frame.serialize(mask=True))
        with suppress(ConnectionResetError):
            while len(received) < 2 or len(received) < 2 + received[1]:
                if not (chunk := connection.recv(1 << 16)):
                    break
                received += chunk
        return received


@pytest.mark.parametrize(
    ("opcode", "pieces", "code"),
    [
        (Opcode.TEXT, [b"\xff"], 1007),
        (Opcode.TEXT, [b"\xc3", b"\x28"], 1007),
        (Opcode.BINARY, [b""] * (MOST_FRAMES + 1), 1009),
        (Opcode.TEXT, [b""] * (MOST_FRAMES + 1), 1009),
    ],
)
def test_refused(port: int, caplog: pytest.LogCaptureFixture, opcode: Opcode, pieces: list[bytes], code: int) -> None:
    received = answer(port, opcode, pieces)
    assert received[0] == 0x80 | Opcode.CLOSE
    assert int.from_bytes(received[2:4], "big") == code
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("opcode", "pieces"),
    [
        (Opcode.TEXT, ["ä".encode()[:1], "ä".encode()[1:]]),
        (Opcode.BINARY, [b"\xff", b"", b"\0"]),
        (Opcode.BINARY, [b"x", *[b""] * (MOST_FRAMES - 1)]),
    ],
)
def test_taken(port: int, opcode: Opcode, pieces: list[bytes]) -> None:
    received = answer(port, opcode, pieces)
    assert received == bytes([0x80 | opcode, sum(map(len, pieces))]) + b"".join(pieces)


@pytest.mark.usefixtures("little_ahead")
def test_a_client_whose_pongs_wait_behind_its_messages_is_there(impatient: int) -> None:
    async def script() -> None:
        async with asyncio.timeout(120), websockets.connect(f"ws://127.0.0.1:{impatient}", max_size=None) as client:
            messages = [bytes([number]) * 300_000 for number in range(10)]
            sending = asyncio.gather(*(client.send(message) for message in messages))
            assert [await client.recv() for _ in messages] == messages
            await sending

    asyncio.run(script())


def connecting(port: int) -> websockets.connect:
    return websockets.connect(f"ws://127.0.0.1:{port}", ping_interval=None, compression=None)


class Busy:
    """An application that echoes messages once it may: until then it works on the first."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def receive_and_work() -> Any:
            message = await receive()
            while message["type"] == "websocket.receive" and not self.may_go_on.is_set():
                await asyncio.sleep(0.01)
            return message

        await echo(scope, receive_and_work, send)


@pytest.fixture
def little_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received_messages, "MOST_AHEAD_BYTES", MOST_AHEAD_BYTES)


@pytest.mark.usefixtures("little_ahead")
def test_pings_are_answered_while_the_application_works() -> None:
    busy = Busy()

    async def script(port: int) -> None:
        async with asyncio.timeout(60), connecting(port) as client:
            messages = [bytes([number]) * (MOST_AHEAD_BYTES // 30) for number in range(28)]
            for message in messages:
                await client.send(message)
            await (await client.ping())  # behind all of them
            busy.may_go_on.set()
            assert [await client.recv() for _ in messages] == messages

    with serving(busy) as port:
        asyncio.run(script(port))


@pytest.mark.usefixtures("little_ahead")
def test_what_is_read_ahead_is_bounded() -> None:
    """A client that sends more than its system and the server's hold waits, and loses nothing."""
    busy = Busy()

    async def script(port: int) -> None:
        async with asyncio.timeout(60), connecting(port) as client:
            sent = 0

            async def send_all() -> None:
                nonlocal sent
                for number in range(400):
                    await client.send(bytes([number % 256]) * 50_000)
                    sent += 1

            sending = asyncio.create_task(send_all())
            before = -1
            while sent > before:  # until nothing more goes out
                before = sent
                await asyncio.sleep(0.3)
            assert MOST_AHEAD_BYTES / 50_000 < sent < 300
            busy.may_go_on.set()
            heard = [await client.recv() for _ in range(400)]
            assert [message[0] for message in heard] == [number % 256 for number in range(400)]
            await sending

    with serving(busy) as port:
        asyncio.run(script(port))


def test_a_client_that_answers_no_ping_is_gone(impatient: int) -> None:
    received = b""
    with socket.create_connection(("127.0.0.1", impatient), timeout=60) as connection:
        connection.sendall(HANDSHAKE)
        while chunk := connection.recv(1 << 16):
            received += chunk
    assert b"keepalive ping timeout" in received


def test_over_tls() -> None:
    tls = Path(__file__).parent.parent / "data" / "tls"
    certificate, key = str(tls / "certificate.pem"), str(tls / "key.pem")

    async def script(port: int) -> None:
        context = ssl.create_default_context(cafile=certificate)
        context.check_hostname = False
        async with asyncio.timeout(60), websockets.connect(f"wss://127.0.0.1:{port}", ssl=context) as client:
            await (await client.ping())
            await client.send("ä" * 100_000)
            assert await client.recv() == "ä" * 100_000

    with serving(echo, ssl_certfile=certificate, ssl_keyfile=key) as port:
        asyncio.run(script(port))


def small_frames(opcode: Opcode, count: int, first: int = 0) -> bytes:
    return b"".join(
        Frame(opcode, number.to_bytes(4, "big")).serialize(mask=True) for number in range(first, first + count)
    )


def handshaken(port: int, receive_bytes: int | None = None) -> socket.socket:
    client = socket.socket()
    client.settimeout(20)
    if receive_bytes is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.connect(("127.0.0.1", port))
    client.sendall(HANDSHAKE)
    answered = b""
    while not answered.endswith(b"\r\n\r\n"):
        answered += client.recv(1)
    return client


def test_many_small_frames_are_taken_in_turns_and_all_of_them(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_protocol, "_FRAMES_AT_ONCE", 3)
    content = b"".join(number.to_bytes(4, "big") for number in range(2000))
    with handshaken(port) as client:
        client.sendall(small_frames(Opcode.BINARY, 1000))
        client.sendall(small_frames(Opcode.BINARY, 1000, 1000) + Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))
        heard = b"".join(iter(partial(client.recv, 1 << 16), b""))
    echoed = b"".join(b"\x82\x04" + content[at : at + 4] for at in range(0, len(content), 4))
    # Those behind which the close is seen need no echo.
    assert heard.startswith(echoed[:60])
    assert echoed.startswith(heard.removesuffix(b"\x88\x02\x03\xe8"))


def test_pings_of_a_client_that_does_not_read_fill_no_memory() -> None:
    served: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["extensions"][EXTENSION])
        await echo(scope, receive, send)

    ping = Frame(Opcode.PING, bytes(125)).serialize(mask=True)
    with serving(app) as at, handshaken(at, 4096) as client:
        client.sendall(ping * 80_000)
        assert served[0].transport.get_write_buffer_size() < 1 << 18
