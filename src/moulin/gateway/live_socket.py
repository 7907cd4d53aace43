"""A WebSocket as the live protocols want it: JSON out, messages in, and closing with a code that says why."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from enum import IntEnum
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from moulin.gateway.api_error import ApiError

_SLOW_SEC = 20.0
_CLOSE_SEC = 2.0
_MAX_REASON_BYTES = 123


class CloseCode(IntEnum):
    """RFC 6455's, and of the private ones those that end like the HTTP status that they mean."""

    DONE = 1000
    SLOW = 1008
    FAILED = 1011
    TRY_LATER = 1013
    BAD_REQUEST = 4400
    NOT_FOUND = 4404
    IDLE = 4408

    @classmethod
    def of(cls, error: ApiError) -> CloseCode:
        """Why a client was turned away."""
        if error.status in (429, 503):
            return cls.TRY_LATER
        if error.status == 404:
            return cls.NOT_FOUND
        return cls.BAD_REQUEST if error.status < 500 else cls.FAILED


class ClientGone(Exception):
    """There is nobody to talk to any more: the client has left, or reads nothing."""


class LiveSocket:
    """Used by one task. `send` and `receive` raise ClientGone."""

    def __init__(self, websocket: WebSocket, *, slow_sec: float = _SLOW_SEC) -> None:
        """`slow_sec`: how long a client may leave an event unread."""
        self._websocket, self._slow_sec = websocket, slow_sec

    async def accept(self) -> None:
        """Where the client offers subprotocols, it gets the first that is not a key in disguise."""
        offered = self._websocket.scope.get("subprotocols") or []
        names = [name for name in offered if not name.startswith("openai-")]
        await self._websocket.accept(subprotocol=names[0] if names else None)

    async def receive(self, timeout_sec: float) -> str | bytes | None:
        """The next message, or None where none has come in time.

        Nothing is read ahead: a client that sends faster than it is recognised is slowed down by TCP.
        """
        try:
            async with asyncio.timeout(timeout_sec):
                message = await self._websocket.receive()
        except TimeoutError:
            return None
        if message["type"] == "websocket.disconnect":
            raise ClientGone
        text: str | None = message.get("text")
        data: bytes | None = message.get("bytes")
        return text if text is not None else data or b""

    async def send(self, fields: dict[str, Any]) -> None:
        """Waits while the client has not taken what is before it."""
        try:
            async with asyncio.timeout(self._slow_sec):
                await self._websocket.send_text(json.dumps(fields, ensure_ascii=False))
        except TimeoutError:
            await self.close(CloseCode.SLOW, f"the client has read nothing for {self._slow_sec:g} s")
            raise ClientGone from None
        except (WebSocketDisconnect, RuntimeError) as error:  # starlette's for what is closed already
            raise ClientGone from error

    async def close(self, code: CloseCode, reason: str) -> None:
        """Say farewell as well as can be."""
        if self._websocket.application_state is WebSocketState.DISCONNECTED:
            return
        short = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(_CLOSE_SEC):
                await self._websocket.close(code, short)
