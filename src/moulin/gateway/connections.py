"""The connections of a gateway process: bounded, and each with a time to say what it wants.

Idle is a connection without a request under way: it says nothing, has sent half of its headers, is in the middle of a
TLS handshake, or waits for its next request. One that is idle for too long is closed. Where all places are taken the
caller with the most idle connections loses its oldest; where all are at work, a few more connections are taken, on
which health is answered and all else refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from moulin.gateway.api_error import RETRY_AFTER_SEC, ApiError
from moulin.gateway.error_forms import error_response
from moulin.gateway.event_turns import Turns
from moulin.gateway.http_protocol import HttpProtocol

logger = logging.getLogger(__name__)

_SWEEP_SEC = 0.5
_WRITE_SEC = 60.0
"""The time for which a client may not read a byte of its answer."""
_ANSWERED_WHEN_FULL = ("/healthz", "/readyz", "/metrics")
_CLOSED_AT_ONCE = 64
"""Refused connections in one turn of the event loop."""
_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_FEW_HOSTS = 64


class _Held:
    """One connection. `protocol` is None during a TLS handshake."""

    __slots__ = ("closing", "extra", "host", "idle_since", "number", "protocol", "sock")

    def __init__(self, number: int, host: str, idle_since: float, sock: socket.socket | None, *, extra: bool) -> None:
        self.number, self.host, self.sock, self.extra = number, host, sock, extra
        self.idle_since: float | None = idle_since
        self.protocol: BoundedProtocol | None = None
        self.closing = False


class Connections:
    """All open connections, by their descriptors. To be used in one event loop."""

    def __init__(
        self, limit: int, reserve: int, *, header_sec: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`header_sec`: how long a connection may be idle, with whatever part of its headers."""
        self._limit, self._reserve, self._header_sec, self._clock = limit, reserve, header_sec, clock
        self.turns = Turns()
        self._held: dict[int, _Held] = {}
        self._idle: OrderedDict[int, _Held] = OrderedDict()
        self._idle_of: dict[str, OrderedDict[int, _Held]] = {}
        self._num_closing = 0
        self._sweeping = False

    @property
    def count(self) -> int:
        """Connections that are open, those that are being closed included."""
        return len(self._held)

    @property
    def must_wait(self) -> bool:
        """Whether no further connection may be accepted before some of those that are being closed are."""
        return len(self._held) >= self._limit + self._reserve and self._num_closing > 0

    def admit(self, number: int, host: str, sock: socket.socket | None = None) -> _Held | None:
        """Take a connection with descriptor `number`; None where it must be closed at once."""
        extra = False
        if len(self._held) - self._num_closing >= self._limit and not self._make_room():
            if len(self._held) >= self._limit + self._reserve:
                return None
            extra = True
        held = self._held[number] = _Held(number, host, self._clock(), sock, extra=extra)
        self._rest(held)
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(_SWEEP_SEC, self._sweep)
        return held

    def of(self, protocol: BoundedProtocol, number: int, host: str) -> _Held | None:
        """The connection that `protocol` has been made for; None where there is no place for it."""
        held = self._held.get(number) or self.admit(number, host)
        if held is not None:
            held.protocol = protocol
        return held

    def works(self, held: _Held) -> None:
        """A request has begun."""
        if held.idle_since is not None:
            held.idle_since = None
            self._forget_idle(held)

    def rests(self, held: _Held) -> None:
        """The answer is complete."""
        self._forget_idle(held)
        held.idle_since = self._clock()
        self._rest(held)

    def gone(self, held: _Held) -> None:
        """The connection has been closed. It may be said again, when another has its descriptor."""
        if self._held.get(held.number) is held:
            del self._held[held.number]
            self._forget_idle(held)
            self._num_closing -= held.closing

    def make_room(self) -> None:
        """Close an idle connection, because descriptors have run out."""
        self._make_room()

    def _make_room(self) -> bool:
        """Close an idle connection of whoever has most; whether there was one."""
        if not self._idle:
            return False
        idle = self._idle
        if len(self._idle_of) <= _FEW_HOSTS:
            idle = max(self._idle_of.values(), key=len)
        self._close(next(iter(idle.values())))
        return True

    def _close(self, held: _Held) -> None:
        self._forget_idle(held)
        held.closing = True
        self._num_closing += 1
        if held.protocol is not None:
            held.protocol.close_idle()
        elif held.sock is not None:
            with contextlib.suppress(OSError):
                held.sock.shutdown(socket.SHUT_RDWR)

    def _rest(self, held: _Held) -> None:
        if not held.closing:
            self._idle[held.number] = held
            self._idle_of.setdefault(held.host, OrderedDict())[held.number] = held

    def _forget_idle(self, held: _Held) -> None:
        self._idle.pop(held.number, None)
        of_host = self._idle_of.get(held.host)
        if of_host is not None:
            of_host.pop(held.number, None)
            if not of_host:
                del self._idle_of[held.host]

    def _sweep(self) -> None:
        now = self._clock()
        for held in list(self._idle.values()):  # the oldest first
            if held.idle_since is None or now - held.idle_since <= self._header_sec:
                break
            self._close(held)
        for held in list(self._held.values()):
            if held.protocol is not None:
                held.protocol.abort_if_unread(now - _WRITE_SEC)
        self._sweeping = bool(self._held)
        if self._sweeping:
            asyncio.get_running_loop().call_later(_SWEEP_SEC, self._sweep)


class BoundedListener(socket.socket):
    """A listening socket whose `accept` keeps to the limit of `Connections`.

    For an `AcceptLoop`; event loops themselves would accept until descriptors run out.
    """

    def __init__(self, listener: socket.socket, connections: Connections) -> None:
        """Takes the place of `listener`."""
        super().__init__(listener.family, listener.type, listener.proto, fileno=listener.detach())
        self.setblocking(False)
        self._connections = connections
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def accept(self) -> tuple[socket.socket, Any]:
        for _ in range(_CLOSED_AT_ONCE):
            if self._connections.must_wait:
                break
            try:
                plain, address = super().accept()
            except OSError as error:
                if error.errno not in _NO_RESOURCES:
                    raise
                self._drop_one(error)
                break
            connection = _Connection(plain, self._connections)
            connection.held = self._connections.admit(connection.fileno(), _host(address), connection)
            if connection.held is not None:
                return connection, address
            logger.warning("All connections are at work; another was closed")
            connection.close()
        raise BlockingIOError

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._spare)
        self._spare = -1
        super().close()

    def _drop_one(self, error: OSError) -> None:
        """Without a free descriptor a waiting connection would wake the event loop for ever: give it the spare one."""
        logger.warning("A connection cannot be accepted: %s", error.strerror)
        self._connections.make_room()
        with contextlib.suppress(OSError):
            os.close(self._spare)
        with contextlib.suppress(OSError):
            super().accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


class _Connection(socket.socket):
    """An accepted socket that tells when it is closed, or detached: so uvloop ends those that it has been given."""

    held: _Held | None = None

    def __init__(self, plain: socket.socket, connections: Connections) -> None:
        self._connections = connections
        super().__init__(plain.family, plain.type, plain.proto, fileno=plain.detach())

    def close(self) -> None:
        self._tell()
        super().close()

    def detach(self) -> int:
        self._tell()
        return super().detach()

    def _tell(self) -> None:
        if self.held is not None:
            self._connections.gone(self.held)


class BoundedProtocol(HttpProtocol):
    """The HTTP protocol, which reports to `Connections` whether it is at work."""

    def __init__(self, connections: Connections, **uvicorns: Any) -> None:
        super().__init__(connections.turns, **uvicorns)
        self._all = connections
        self._held: _Held | None = None
        self._unread_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        number = transport.get_extra_info("socket").fileno()
        self._held = self._all.of(self, number, self.client[0] if self.client else "")
        if self._held is None:
            transport.abort()
        elif self._held.extra:
            self.app = _when_full(self.app)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._held is not None:
            self._all.gone(self._held)

    def handle_events(self) -> None:
        super().handle_events()
        self._note()

    def on_response_complete(self) -> None:
        if self._held is not None:
            self._all.rests(self._held)
        super().on_response_complete()
        self._note()

    def handle_websocket_upgrade(self, event: Any) -> None:
        if self._held is not None:
            self._all.works(self._held)
            self._held.protocol = None
            if self._held.sock is None:  # its end will not be seen
                self._all.gone(self._held)
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_since = time.monotonic()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread_since = None

    def close_idle(self) -> None:
        """Close a connection without a request; whoever has sent a part of one is told why."""
        if self.conn.trailing_data[0] and not self.transport.is_closing():
            self.refuse(ApiError(408, "The request's headers took too long", code="request_timeout"))
        else:
            self.transport.close()

    def abort_if_unread(self, since: float) -> None:
        """Abort a connection whose client has read nothing since that time, and keeps its answer waiting."""
        if self._unread_since is not None and self._unread_since < since:
            self.transport.abort()

    def _note(self) -> None:
        if self._held is not None and self.cycle is not None and not self.cycle.response_complete:
            self._all.works(self._held)


def _when_full(app: Any) -> ASGIApp:
    """Answer health and metrics, and refuse everything else."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in _ANSWERED_WHEN_FULL:
            await app(scope, receive, send)
            return
        refusal = ApiError(
            503,
            "All connections of the gateway are at work",
            code="server_busy",
            hint="try again later",
            retry_after_sec=RETRY_AFTER_SEC,
        )
        response = error_response(refusal, scope)
        response.headers["connection"] = "close"
        await response(scope, receive, send)

    return answer


def _host(address: Any) -> str:
    return str(address[0]) if isinstance(address, tuple) and address else ""
