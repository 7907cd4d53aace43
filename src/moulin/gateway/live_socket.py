"""A WebSocket for the live protocols: sends JSON, receives messages, closes with a code for the reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from enum import IntEnum
from typing import Any, Protocol

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from uvicorn.protocols.utils import ClientDisconnected

from moulin.gateway.api_error import ApiError, close_reason
from moulin.gateway.websocket_protocol import EXTENSION

_SLOW_SEC = 20.0
_CLOSE_SEC = 2.0


class CloseCode(IntEnum):
    """Close codes of RFC 6455, and private ones that end in the corresponding HTTP status."""

    DONE = 1000
    SLOW = 1008
    FAILED = 1011
    RESTART = 1012
    TRY_LATER = 1013
    BAD_REQUEST = 4400
    NOT_FOUND = 4404
    IDLE = 4408

    @classmethod
    def of(cls, error: ApiError) -> CloseCode:
        """The code for closing because of `error`."""
        if error.status in (429, 503):
            return cls.TRY_LATER
        if error.status == 404:
            return cls.NOT_FOUND
        return cls.BAD_REQUEST if error.status < 500 else cls.FAILED


class ClientGone(Exception):
    """The client has disconnected, or does not read."""


class Messages(Protocol):
    """What a `WebSocketProtocol` does for an open connection."""

    async def receive(self, timeout_sec: float) -> Mapping[str, Any] | None: ...

    async def send_text(self, text: bytes, patience_sec: float) -> None: ...


class LiveSocket:
    """A WebSocket for use by one task. `send` and `receive` raise ClientGone."""

    def __init__(self, websocket: WebSocket, *, slow_sec: float = _SLOW_SEC) -> None:
        """`slow_sec`: the time after which a client with an unread event counts as gone."""
        self._websocket, self._slow_sec = websocket, slow_sec
        self._messages: Messages = websocket.scope["extensions"][EXTENSION]

    async def accept(self) -> None:
        """Accept the connection, with the first offered subprotocol that does not carry a key."""
        offered = self._websocket.scope.get("subprotocols") or []
        names = [name for name in offered if not name.startswith("openai-")]
        await self._websocket.accept(subprotocol=names[0] if names else None)

    async def receive(self, timeout_sec: float) -> str | bytes | None:
        """The next message, or None after `timeout_sec` without one."""
        message = await self._messages.receive(timeout_sec)
        if message is None:
            return None
        if message["type"] == "websocket.disconnect":
            raise ClientGone
        text: str | None = message.get("text")
        data: bytes | None = message.get("bytes")
        return text if text is not None else data or b""

    async def send(self, fields: dict[str, Any]) -> None:
        """Send an event; waits until the client has read enough of the earlier ones."""
        try:
            await self._messages.send_text(_json(fields), self._slow_sec)
        except TimeoutError:
            await self.close(CloseCode.SLOW, f"the client has read nothing for {self._slow_sec:g} s")
            raise ClientGone from None
        except ClientDisconnected as error:
            raise ClientGone from error

    async def close(self, code: CloseCode, reason: str) -> None:
        """Close the connection; failures are ignored."""
        if self._websocket.application_state is WebSocketState.DISCONNECTED:
            return
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(_CLOSE_SEC):
                await self._websocket.close(code, close_reason(reason))


_encode = msgspec.json.Encoder().encode


def _json(fields: dict[str, Any]) -> bytes:
    """`fields` as JSON, whose lone surrogates, which no frame can hold, are replaced."""
    try:
        return _encode(fields)
    except (UnicodeEncodeError, OverflowError, TypeError):
        return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
