"""Accepting connections by ourselves, on any event loop: asyncio's and uvloop's own servers know no limit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

logger = logging.getLogger(__name__)

_ACCEPTED_AT_ONCE = 16
"""Connections in one turn of the event loop; few, so that workers who share a listener get about as many each."""


class AcceptLoop:
    """Accepts from a listening socket until it is closed; in an event loop. uvicorn takes it for an asyncio server."""

    def __init__(
        self, listener: socket.socket, new_protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener, self._new_protocol, self._tls = listener, new_protocol, tls
        self._opening: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept)
        self._is_open = True

    def close(self) -> None:
        """Accept nothing more. The socket stays open."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None: ...

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._open(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._new_protocol, connection, ssl=self._tls)
        except Exception as error:
            with contextlib.suppress(OSError):
                connection.close()
            if not isinstance(error, OSError):  # those are a client's: a TLS handshake fails, or the connection ends
                logger.exception("A connection cannot be opened")
