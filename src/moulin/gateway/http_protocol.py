"""HTTP/1.1 on uvicorn, with one error body for what never becomes a request, and bounds on a WebSocket's handshake.

uvicorn reads a handshake twice: h11, and then the WebSocket library, which has smaller limits and, where they are
exceeded, leaves the connection open and unanswered. So the same limits are checked here first.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from moulin.gateway.access import MOST_HEADERS_BYTES, headers_too_large
from moulin.gateway.api_error import ApiError
from moulin.gateway.event_turns import SlicedConnection, Turns

MOST_HEADERS = 128
MOST_LINE_BYTES = 8000
"""Limits on a WebSocket's handshake; those of the library are 128 and 8192, with the end of the line."""


class HttpProtocol(H11Protocol):
    """uvicorn's protocol on h11, which takes a few events at once and the next in its turn."""

    conn: SlicedConnection

    def __init__(self, turns: Turns, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self.conn = SlicedConnection(max_incomplete_event_size=MOST_HEADERS_BYTES)
        self._turns = turns
        self._waits = False
        """Whether more events are to be taken in a later turn."""

    def data_received(self, data: bytes) -> None:
        if self._waits:  # reading was begun again by somebody else
            self.conn.receive_data(data)
            self.transport.pause_reading()
        else:
            super().data_received(data)

    def handle_events(self) -> None:
        """Take a slice of events; the rest, before anything else is read, in turn."""
        self.conn.begin_slice()
        super().handle_events()
        if self.conn.may_have_more and not self._waits:
            self._waits = True
            self.transport.pause_reading()
            self._turns.add(self._go_on)

    def _go_on(self) -> None:
        self._waits = False
        if self.transport.is_closing():
            return
        self.handle_events()
        if not (self._waits or self.flow.read_paused):
            self.transport.resume_reading()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Go on as a WebSocket, or refuse with 431 or 400 and close."""
        lines = [
            len(event.method) + len(event.target) + 11,
            *(len(name) + len(value) + 2 for name, value in self.headers),
        ]
        if len(lines) > MOST_HEADERS or max(lines) > MOST_LINE_BYTES:
            self.refuse(
                ApiError(
                    431,
                    f"Expected at most {MOST_HEADERS} headers of {MOST_LINE_BYTES} bytes each in a WebSocket's "
                    f"handshake, got {len(lines) - 1} of up to {max(lines)}",
                    code="headers_too_large",
                )
            )
            return
        fields = dict(self.headers)
        if fields.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in fields:
            # The library would wait for the body before it answers.
            self.refuse(ApiError(400, "Expected a WebSocket's handshake without a body", code="invalid_handshake"))
            return
        try:
            super().handle_websocket_upgrade(event)
        except Exception:  # of the library's parser
            self.refuse(ApiError(400, "The WebSocket's handshake cannot be read", code="invalid_handshake"))

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP request, with 400 or, for too many bytes of headers, 431."""
        problem = sys.exception()
        if isinstance(problem, h11.RemoteProtocolError) and problem.error_status_hint == 431:
            self.refuse(headers_too_large())
        else:
            self.refuse(ApiError(400, msg, code="invalid_http"))

    def refuse(self, error: ApiError) -> None:
        """Answer `error` where no answer has begun, and close the connection."""
        body = json.dumps(error.body()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        reason = HTTPStatus(error.status).phrase.encode()
        # Where a response to an earlier request has begun, nothing more can be said.
        with suppress(h11.LocalProtocolError):
            for part in (
                h11.Response(status_code=error.status, headers=headers, reason=reason),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(part) or b"")
        self.transport.close()
