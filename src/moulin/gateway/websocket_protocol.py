"""WebSockets on uvicorn: read ahead of the application, with a bound on the pieces of a message, and no traceback for a
client's bytes, no error for its refusal.

uvicorn hands over the handshake, and `websockets` without I/O reads all but the usual frames (`usual_frames.py`),
answers pings and closes. The application takes messages from the scope's extension `EXTENSION`, which is this protocol,
rather than through ASGI's `receive` and `send`, which work as well: that saves a timer a message, and the layers
between.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio.transports import BaseTransport
from collections import deque
from collections.abc import Iterator
from typing import Any, cast

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.protocol import OPEN

from moulin.gateway.event_turns import Turns
from moulin.gateway.received_messages import ReadAhead, ReceivedMessages
from moulin.gateway.usual_frames import FrameCutter, Other, text_frame

MOST_FRAMES = 10_000
"""Frames of one message. Its size is bounded by the library; frames may be empty, and each takes memory."""

EXTENSION = "moulin.websocket"

_FRAMES_AT_ONCE = 100
"""Frames of one connection in one turn of the event loop: a read of a socket may hold 40,000 pings."""

_BYTES_AT_ONCE = 1024
"""The same where frames are not told apart: so many bytes count as one."""

_RECEIVE_BUFFER_BYTES = 256 << 10
"""The system's buffer, in which pings wait behind the messages of a client that sends faster than it is heard. Usually
it grows to some megabytes, minutes of audio."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol on websockets, without I/O."""

    queue: ReceivedMessages  # type: ignore[assignment]

    def __init__(self, ahead: ReadAhead, turns: Turns, **uvicorns: Any) -> None:
        """`ahead` and `turns` are those of all connections."""
        super().__init__(**uvicorns)
        self.queue = ReceivedMessages(ahead, self._set_reading, self._set_reading)
        self._cutter, self._turns = FrameCutter(self.config.ws_max_size), turns
        self._uncut: deque[bytes] = deque()
        """What has been read since the frames that are cut in turns."""
        self._cutting: Iterator[tuple[bool, bytes] | Other] | None = None
        self._reads = True
        self._came_early = False
        self._late_pong = b""
        self._last_data = 0.0

    # ----------------------------------------------------------------------------------------------- to the application

    async def run_asgi(self) -> None:
        cast(Any, self.scope)["extensions"][EXTENSION] = self
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
        if self._cutting is not None:  # of a transport that had more at hand when it was paused
            self._uncut.append(data)
            return
        self._cutting = self._cut(data)
        self._take_frames()

    def _cut(self, data: bytes) -> Iterator[tuple[bool, bytes] | Other]:
        if not self._came_early:
            return self._cutter.cut(data)
        # The library may be within a frame.
        return (Other(data[at : at + _BYTES_AT_ONCE]) for at in range(0, len(data), _BYTES_AT_ONCE))

    def _take_frames(self) -> None:
        """Take some frames; the rest, before anything else is read, in turn."""
        for _ in range(_FRAMES_AT_ONCE):
            frame = None if self.transport.is_closing() or self._cutting is None else next(self._cutting, None)
            if isinstance(frame, Other):
                super().data_received(frame.data)
            elif frame is not None:
                if self.conn.state is OPEN:
                    self._put(frame[1], is_text=frame[0])
            elif self._uncut and not self.transport.is_closing():
                self._cutting = self._cut(self._uncut.popleft())
            else:
                self._cutting = None
                self._set_reading()
                return
        self._turns.add(self._take_frames)
        self._set_reading()

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.writable.set()  # nobody waits for a client that has gone

    def handle_ping(self) -> None:
        """Answer; to a client that does not read, later and its last ping only, else its pings would fill memory."""
        pong = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(pong)
        else:
            self._late_pong = pong

    def resume_writing(self) -> None:
        super().resume_writing()
        pong, self._late_pong = self._late_pong, b""
        if pong and not self.close_sent and not self.transport.is_closing():
            self.transport.write(pong)

    def keepalive_timeout(self) -> None:
        """Close with 1011, unless the client's pong may be behind messages that this server has not read yet."""
        if not self._reads or self._last_data > self.ping_sent_at:
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

    def _set_reading(self) -> None:
        """Read, or pause where enough waits."""
        reads = self._cutting is None and not self.queue.is_paused
        if reads == self._reads or self.transport.is_closing():
            return
        self._reads = reads
        if reads:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _end(self, code: CloseCode, reason: str) -> None:
        self.frames = []
        if not self.close_sent:
            self.conn.send_close(code, reason)
            self.handle_parser_exception()
