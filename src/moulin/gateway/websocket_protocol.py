"""WebSockets on uvicorn: read ahead of the application, with a bound on the pieces of a message, and no traceback for a
client's bytes, no error for its refusal.

uvicorn hands over the handshake, and `websockets` without I/O reads all but the usual frames (`usual_frames.py`),
answers pings and closes. The application takes messages from the scope's extension `EXTENSION`, which is this protocol,
rather than through ASGI's `receive` and `send`, which work as well: that saves a timer a message, and the layers
between.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.protocol import OPEN

from moulin.gateway.received_messages import ReadAhead, ReceivedMessages
from moulin.gateway.usual_frames import FrameCutter, Other, text_frame

MOST_FRAMES = 10_000
"""Frames of one message. Its size is bounded by the library; frames may be empty, and each takes memory."""

EXTENSION = "moulin.websocket"


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol on websockets, without I/O."""

    queue: ReceivedMessages  # type: ignore[assignment]

    def __init__(self, ahead: ReadAhead, **uvicorns: Any) -> None:
        """`ahead` is that of all connections."""
        super().__init__(**uvicorns)
        self.queue = ReceivedMessages(ahead, self._pause_reading, self._resume_reading)
        self._cutter = FrameCutter(self.config.ws_max_size)
        self._came_early = False
        self._last_data = 0.0

    # ----------------------------------------------------------------------------------------------- to the application

    async def run_asgi(self) -> None:
        self.scope["extensions"][EXTENSION] = self  # type: ignore[index,typeddict-unknown-key]
        try:
            await super().run_asgi()
        finally:
            self.queue.close()

    async def receive(self, timeout_sec: float | None = None) -> ASGIReceiveEvent | None:  # type: ignore[override]
        """The next message of ASGI, or None after that time without one."""
        return await self.queue.get(timeout_sec)

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "websocket.close":
            self.queue.drop()  # so that the client's own close is read
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True  # refused, which uvicorn would call an error in the log

    async def send_text(self, text: bytes, patience_sec: float) -> None:
        """Send a text message in UTF-8, when the client has read enough of the earlier ones. Raises TimeoutError where
        it does not for `patience_sec`, and ClientDisconnected."""
        if not self.writable.is_set():
            async with asyncio.timeout(patience_sec):
                await self.writable.wait()
        if self.close_sent or self.conn.state is not OPEN or self.transport.is_closing():
            raise ClientDisconnected
        self.transport.write(text_frame(text))

    # -------------------------------------------------------------------------------------------------- from the client

    def data_received(self, data: bytes) -> None:
        self._last_data = self.loop.time()
        if not self.handshake_complete:
            self._came_early = self.handshake_initiated
            super().data_received(data)
            return
        if self._came_early:  # the library may be within a frame
            super().data_received(data)
            return
        for frame in self._cutter.cut(data):
            if isinstance(frame, Other):
                super().data_received(frame.data)
            elif self.conn.state is OPEN:
                self._put(frame[1], is_text=frame[0])

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.writable.set()  # nobody waits for a client that has gone

    def keepalive_timeout(self) -> None:
        """Close with 1011, unless the client's pong may be behind messages that this server has not read yet."""
        if self.queue.is_paused or self._last_data > self.ping_sent_at:
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()
        else:
            super().keepalive_timeout()

    def handle_cont(self, event: Frame) -> None:
        """Add a frame to the message, or close with 1009."""
        if len(self.frames) >= MOST_FRAMES:
            self._end(CloseCode.MESSAGE_TOO_BIG, f"Expected at most {MOST_FRAMES:,} frames in a message")
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Hand the message on, or close with 1007 where it is text that is no UTF-8."""
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if not self.close_sent:
            self._put(data, is_text=self.curr_msg_data_type == "text")

    def _put(self, data: bytes, *, is_text: bool) -> None:
        if not is_text:
            self.queue.put_nowait({"type": "websocket.receive", "bytes": data}, len(data))
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._end(CloseCode.INVALID_DATA, "Expected UTF-8 in a text message")
        else:
            self.queue.put_nowait({"type": "websocket.receive", "text": text}, len(data))

    def _pause_reading(self) -> None:
        self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _end(self, code: CloseCode, reason: str) -> None:
        self.frames = []
        if not self.close_sent:
            self.conn.send_close(code, reason)
            self.handle_parser_exception()
