"""WebSocket streams of the load generator: websockets' protocol core on asyncio's transports.

One callback a message and no task a stream, so that the generator leaves the cores to the servers.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from moulin.evaluate.connection import Record

if TYPE_CHECKING:
    from websockets.frames import Frame


class WebSocketStream(asyncio.Protocol, ABC):
    """A stream that is a websocket of its own. Messages sent before it is open wait."""

    def __init__(self, record: Record, url: str, headers: Mapping[str, str] | None = None) -> None:
        from websockets.client import ClientProtocol
        from websockets.uri import parse_uri

        self.record = record
        self.num_sent = 0
        self._address = parse_uri(url)
        self._headers = headers or {}
        self._protocol = ClientProtocol(self._address, max_size=None)
        self.loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._open = self._abandoned = False
        self._unsent: deque[int] = deque()

    @abstractmethod
    def messages(self, index: int) -> bytes:
        """The serialised frames for the clip's piece `index`."""

    @abstractmethod
    def on_text(self, message: Frame, now: float) -> None:
        """A text message has come at `now`."""

    def on_open(self) -> bytes:
        """The serialised frames to send first."""
        return b""

    async def connect(self) -> None:
        address = self._address
        context = ssl.create_default_context() if address.secure else None
        try:
            await self.loop.create_connection(lambda: self, address.host, address.port, ssl=context)
        except OSError as error:
            self.fail(f"cannot connect: {error.strerror or error}")

    def send(self, index: int) -> None:
        if not self._open:
            self._unsent.append(index)
            return
        self.record.sent[index] = self.loop.time()
        self.write(self.messages(index))

    def write(self, frames: bytes) -> None:
        if self._transport and frames:
            self.num_sent += 1
            self._transport.write(frames)

    def abandon(self) -> None:
        self._abandoned = True
        if self._transport:
            self._transport.abort()

    def finish(self, text: str) -> None:
        """Record the final text, and close the connection."""
        self.record.finish(text)
        if self._transport:
            self._transport.close()

    def fail(self, why: str) -> None:
        self.record.fail(why)
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        request = self._protocol.connect()
        request.headers.update(self._headers)
        self._protocol.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        from websockets.frames import Close, Frame, Opcode

        now = self.loop.time()
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                self._opened()
            elif event.opcode is Opcode.TEXT:
                self.on_text(event, now)
            elif event.opcode is Opcode.CLOSE and not self.record.ended and not self._abandoned:
                close = Close.parse(event.data)
                self.fail(f"the server closed the connection: {close.reason or close.code}")
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.record.ended and not self._abandoned:
            self.fail(f"the server closed the connection{f': {error}' if error else ''}")

    def _opened(self) -> None:
        if self._protocol.handshake_exc:
            self.fail(f"the server refused the connection: {self._protocol.handshake_exc}")
            return
        self._open = True
        self.write(self.on_open())
        while self._unsent:
            self.send(self._unsent.popleft())

    def _flush(self) -> None:
        data = self._protocol.data_to_send()
        if data and self._transport:
            self._transport.writelines(data)


S = TypeVar("S", bound=WebSocketStream)


class WebSocketConnection(Generic[S]):
    """A `Connection` of the load generator, made of what opens one stream."""

    def __init__(self, new_stream: Callable[[Record], S]) -> None:
        self._new_stream = new_stream
        self._opening: set[asyncio.Task[None]] = set()
        self._streams: list[S] = []

    @property
    def num_requests(self) -> int:
        return sum(stream.num_sent for stream in self._streams)

    def open(self, record: Record) -> S:
        stream = self._new_stream(record)
        self._streams.append(stream)
        task = asyncio.get_running_loop().create_task(stream.connect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return stream

    async def close(self) -> None:
        for task in self._opening:
            task.cancel()
