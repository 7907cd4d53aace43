"""Sending to clients that do not read, and saying farewell."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.websockets import WebSocket
from uvicorn.protocols.utils import ClientDisconnected

from moulin.gateway.api_error import ApiError
from moulin.gateway.live_socket import ClientGone, CloseCode, LiveSocket
from moulin.gateway.websocket_protocol import EXTENSION


class Peer:
    """The server's end of a WebSocket, as `WebSocketProtocol` has it."""

    def __init__(self, *received: dict[str, Any], subprotocols: tuple[str, ...] = ()) -> None:
        self.received = [{"type": "websocket.connect"}, *received]
        self.sent: list[dict[str, Any]] = []
        self.reads = True
        scope = {"type": "websocket", "subprotocols": list(subprotocols), "extensions": {EXTENSION: self}}
        self.websocket = WebSocket(scope, self.receive, self._send)

    async def receive(self, timeout_sec: float | None = None) -> Any:
        if not self.received:
            await asyncio.sleep(timeout_sec or 3600)
            return None
        return self.received.pop(0)

    async def send_text(self, text: bytes, patience_sec: float) -> None:
        if self.sent[-1]["type"] == "websocket.close":
            raise ClientDisconnected
        if not self.reads:
            await asyncio.sleep(patience_sec)
            raise TimeoutError
        self.sent.append({"type": "websocket.send", "text": text.decode()})

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


async def _accepted(peer: Peer) -> LiveSocket:
    socket = LiveSocket(peer.websocket, slow_sec=0.02)
    await socket.accept()
    return socket


def test_a_client_that_does_not_read_is_let_go() -> None:
    async def script() -> None:
        peer = Peer()
        socket = await _accepted(peer)
        await socket.send({"text": "ä"})
        assert peer.sent[-1]["text"] == '{"text":"ä"}'
        peer.reads = False
        with pytest.raises(ClientGone):
            await socket.send({})
        assert (peer.sent[-1]["type"], peer.sent[-1]["code"]) == ("websocket.close", CloseCode.SLOW)
        await socket.close(CloseCode.DONE, "")  # there is nothing more to close
        assert len(peer.sent) == 3
        with pytest.raises(ClientGone):
            await socket.send({})

    asyncio.run(script())


def test_what_is_received() -> None:
    async def script() -> None:
        peer = Peer(
            {"type": "websocket.receive", "text": ""},
            {"type": "websocket.receive", "bytes": b"\x00", "text": None},
            {"type": "websocket.disconnect", "code": 1006},
        )
        socket = await _accepted(peer)
        assert [await socket.receive(1), await socket.receive(1)] == ["", b"\x00"]
        with pytest.raises(ClientGone):
            await socket.receive(1)

    asyncio.run(script())


def test_nothing_is_received_in_time() -> None:
    async def script() -> None:
        assert await (await _accepted(Peer())).receive(0.01) is None

    asyncio.run(script())


def test_a_key_is_no_subprotocol() -> None:
    async def script() -> None:
        for offered, chosen in (
            ((), None),
            (("openai-insecure-api-key.secret",), None),
            (("openai-insecure-api-key.secret", "realtime", "other"), "realtime"),
        ):
            peer = Peer(subprotocols=offered)
            await _accepted(peer)
            assert peer.sent[0].get("subprotocol") == chosen

    asyncio.run(script())


def test_a_reason_is_as_long_as_a_close_frame_takes() -> None:
    async def script() -> None:
        peer = Peer()
        await (await _accepted(peer)).close(CloseCode.IDLE, "x" * 122 + "ä")
        assert peer.sent[-1]["reason"] == "x" * 122
        assert peer.sent[-1]["code"] == 4408

    asyncio.run(script())


@pytest.mark.parametrize(
    ("status", "code"), [(400, 4400), (404, 4404), (408, 4400), (429, 1013), (500, 1011), (503, 1013)]
)
def test_codes_say_what_http_would(status: int, code: int) -> None:
    assert CloseCode.of(ApiError(status, "…")) == code
