"""WebSockets on uvicorn, with a bound on the pieces of a message, and no traceback or error for what a client does."""

from __future__ import annotations

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

MOST_FRAMES = 10_000
"""Frames of one message. Its size is bounded by the library; frames may be empty, and each takes memory."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol on websockets, without I/O."""

    _last_data = 0.0

    def data_received(self, data: bytes) -> None:
        self._last_data = self.loop.time()
        super().data_received(data)

    async def send(self, message: ASGISendEvent) -> None:
        """uvicorn logs an error for each handshake that ended otherwise than with a WebSocket, also for one that the
        application refused."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

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
        """Hand the message on, or close with 1007 where it is text that is no UTF-8."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            self.frames = [b"".join(self.frames)]
            try:
                self.frames[0].decode()
            except UnicodeDecodeError:
                self._end(CloseCode.INVALID_DATA, "Expected UTF-8 in a text message")
                return
        super().send_receive_event_to_app()

    def _end(self, code: CloseCode, reason: str) -> None:
        self.frames = []
        if not self.close_sent:
            self.conn.send_close(code, reason)
            self.handle_parser_exception()
