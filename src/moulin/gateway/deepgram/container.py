"""Live audio in a container, WebM from a browser above all: decoded in a process of its own as it comes.

`DecodedSocket` stands between the client's socket and its session: bytes of the container go to the process, and the
session receives samples in their place, float32 at 16 kHz. Nothing is read ahead: the client's next message is read
when the process has taken the one before.
"""

from __future__ import annotations

import asyncio
import math
import socket
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from moulin.audio.containers import SNIFFED_BYTES, container_of
from moulin.errors import AudioError, MoulinError
from moulin.gateway.api_error import api_error
from moulin.gateway.deepgram.session import closes_stream
from moulin.gateway.live_connection import Socket
from moulin.gateway.live_socket import ClientGone, CloseCode
from moulin.isolated_decoding.processes import Decoding
from moulin.long_audio.cutter import Piece

_SETTLED_SEC = 0.1
"""The time without samples after which the process is taken to have decoded what it has."""


class DecodedSocket:
    """A `Socket` whose audio is samples; an asynchronous context manager."""

    def __init__(self, client: Socket, decoding: Decoding, feed: socket.socket) -> None:
        """`feed` takes what `decoding` decodes."""
        self._client, self._decoding, self._feed = client, decoding, feed
        self._head = b""
        self._is_known = False
        self._reading: asyncio.Task[str | None] | None = None
        self._piece: asyncio.Task[Piece | None] | None = None
        self._order: str | None = None
        """A message of the client's that waits for the samples before it."""
        self._closing = False
        self._ended = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the audio could not be decoded; complete when all samples have been received."""
        return self._decoding.warnings

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks: list[asyncio.Task[Any]] = [task for task in (self._reading, self._piece) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def receive(self, timeout_sec: float) -> str | bytes | None:
        try:
            return await self._received(timeout_sec)
        except MoulinError as error:
            await self._refuse(error)
            raise ClientGone from None

    async def send(self, fields: dict[str, Any]) -> None:
        await self._client.send(fields)

    async def close(self, code: CloseCode, reason: str) -> None:
        await self._client.close(code, reason)

    async def _received(self, timeout_sec: float) -> str | bytes | None:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_sec
        while True:
            if self._order is not None and self._ended:
                return self._taken_order()
            if self._piece is None and not self._ended:
                self._piece = asyncio.create_task(anext(self._decoding, None))
            if self._reading is None and self._order is None:
                self._reading = asyncio.create_task(self._read())
            tasks: set[asyncio.Task[Any]] = {task for task in (self._reading, self._piece) if task is not None}
            settling = self._order is not None and not self._closing
            wait_sec = min(_SETTLED_SEC, until - loop.time()) if settling else until - loop.time()
            done, _ = await asyncio.wait(tasks, timeout=max(wait_sec, 0.0), return_when=asyncio.FIRST_COMPLETED)
            if self._piece in done:
                piece, self._piece = self._piece.result(), None
                if piece is None:
                    self._ended = True
                else:
                    return piece.waveform.astype("<f4", copy=False).tobytes()
            elif self._reading in done:
                self._order, self._reading = self._reading.result(), None
            elif settling:
                return self._taken_order()
            elif loop.time() >= until:
                return None

    def _taken_order(self) -> str | None:
        order, self._order = self._order, None
        return order

    async def _read(self) -> str | None:
        """Read a message: audio goes to the process, all else is returned."""
        message = await self._client.receive(math.inf)
        if isinstance(message, str) and not closes_stream(message):
            return message
        if isinstance(message, str) or not message:
            self._expect_container(last=True)
            self._closing = True
            self._ended = not self._head  # without audio there is nothing to wait for
            self._feed.shutdown(socket.SHUT_WR)
            return message or '{"type": "CloseStream"}'
        self._head += message[: SNIFFED_BYTES - len(self._head)]
        self._expect_container(last=len(self._head) == SNIFFED_BYTES)
        with suppress(OSError):  # a process that has ended says why
            await asyncio.get_running_loop().sock_sendall(self._feed, message)
        return None

    def _expect_container(self, *, last: bool) -> None:
        """Raises AudioError where the audio begins as no container does, and no more of its beginning comes."""
        self._is_known = self._is_known or container_of(self._head) is not None
        if last and self._head and not self._is_known:
            raise AudioError(
                "Expected audio in a container (WebM, Ogg, WAV, FLAC, MP3, …), got other bytes",
                hint="samples need the parameters encoding=linear16 and sample_rate",
            )

    async def _refuse(self, error: MoulinError) -> None:
        refusal = api_error(error)
        await self._client.send({"type": "Error", "variant": "invalid_audio", "description": str(refusal)})
        await self._client.close(CloseCode.of(refusal), refusal.message)
