"""WebSockets on uvicorn: pings are answered while the application works, the pieces of a message are bounded, and a
client's bytes give no traceback.

uvicorn reads nothing behind a message until the application takes it, so that a ping there waits, and many clients
disconnect after 20 s without a pong. Here some messages are read ahead.
"""

from __future__ import annotations

import socket
from asyncio.transports import BaseTransport

from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

MOST_FRAMES = 10_000
"""Frames of one message. Its size is bounded by the library; frames may be empty, and each takes memory."""

MOST_AHEAD_BYTES = 2 << 20
"""Messages that are read before the application takes them: a minute of 16-bit samples at 16 kHz."""
_MESSAGE_BYTES = 512
"""What a message takes beside its data."""

_RECEIVE_BUFFER_BYTES = 256 << 10
"""The system's buffer, in which pings wait behind the messages of a client that sends faster than it is heard. Usually
it grows to some megabytes, minutes of audio."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol on websockets, without I/O."""

    _last_data = 0.0
    _ahead_bytes = 0

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        self._last_data = self.loop.time()
        super().data_received(data)

    def keepalive_timeout(self) -> None:
        """Close with 1011, unless the client's pong may be behind messages that this server has not read yet."""
        if self.read_paused or self._last_data > self.ping_sent_at:
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
        """Hand the message on, and pause reading where too many wait; or close with 1007 where it is text that is no
        UTF-8."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            self.frames = [b"".join(self.frames)]
            try:
                self.frames[0].decode()
            except UnicodeDecodeError:
                self._end(CloseCode.INVALID_DATA, "Expected UTF-8 in a text message")
                return
        if self.close_sent:
            super().send_receive_event_to_app()
            return
        self._ahead_bytes += sum(map(len, self.frames)) + _MESSAGE_BYTES
        pauses = not self.read_paused and self._ahead_bytes > MOST_AHEAD_BYTES
        was_paused, self.read_paused = self.read_paused, True  # uvicorn would pause after each message
        super().send_receive_event_to_app()
        self.read_paused = was_paused or pauses
        if pauses:
            self.transport.pause_reading()

    async def receive(self) -> ASGIReceiveEvent:
        """The next message; reads on where enough has been taken."""
        event = await super().receive()
        if event["type"] == "websocket.receive":
            data = event.get("bytes")
            self._ahead_bytes -= len(event["text"].encode() if data is None else data) + _MESSAGE_BYTES
            if self.read_paused and self._ahead_bytes <= MOST_AHEAD_BYTES:
                self.read_paused = False
                self.transport.resume_reading()
        return event

    def _end(self, code: CloseCode, reason: str) -> None:
        self.frames = []
        if not self.close_sent:
            self.conn.send_close(code, reason)
            self.handle_parser_exception()
