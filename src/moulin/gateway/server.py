"""The application on uvicorn."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn

from moulin.errors import LaunchError
from moulin.gateway.accept_loop import AcceptLoop
from moulin.gateway.app import create_app
from moulin.gateway.connection_limit import RESERVE, http_connections
from moulin.gateway.connections import BoundedListener, BoundedProtocol, Connections
from moulin.gateway.received_messages import ReadAhead
from moulin.gateway.settings import GatewaySettings
from moulin.gateway.websocket_protocol import WebSocketProtocol
from moulin.launch.ports import claim_ports
from moulin.launch.signal_echo import SignalEcho

_LOOK_SEC = 0.1
_LAST_WORDS_SEC = 2
"""Time for the answers to requests that are cancelled."""

_BACKLOG = 2048

_GARBAGE = (20_000, 20, 20)
"""Thresholds of the garbage collector; with Python's own it takes 4 % of a live stream's time."""

_WEBSOCKET_MESSAGE_BYTES = 16 << 20
"""The limit on a message; OpenAI's, for one with audio, is 15 MiB."""


def listen(settings: GatewaySettings) -> socket.socket:
    """A listening socket, which any number of `run`s may share. Raises LaunchError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise LaunchError(
            f"Expected port {settings.port} on {settings.host} to be free for the gateway, got: {error.strerror}",
            hint="stop what listens there, or choose another port",
        ) from error


def with_riva_port(settings: GatewaySettings) -> GatewaySettings:
    """`settings` with a port of Riva's on which nobody listens, if it is on. Raises LaunchError.

    gRPC listens by itself, in each worker, and would share the port with whoever else does so.
    """
    if settings.riva_port is None:
        return settings
    claimed = claim_ports(settings.host, {"--riva-port": settings.riva_port}, owner="Riva's gRPC")
    return settings.model_copy(update={"riva_port": claimed["--riva-port"]})


def run(settings: GatewaySettings, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, and then until nothing is open, for `drain_sec` at most, or the next signal.

    Raises LaunchError where there are too few file descriptors.
    """
    connections = connections_for(settings)
    gc.freeze()  # what is imported is here to stay
    gc.set_threshold(*_GARBAGE)
    server = DrainingServer(server_config(settings, connections), settings.drain_sec)
    with _not_raised_again() as told:
        server.told_of_signals = told
        server.run([BoundedListener(listener, connections)])


class DrainingServer(uvicorn.Server):
    """uvicorn's with an `AcceptLoop`, which closes only its listeners at first; uvicorn's closes WebSockets at once."""

    def __init__(self, config: uvicorn.Config, drain_sec: float) -> None:
        """Riva's server, too, is told to stop; its own time is in the settings."""
        super().__init__(config)
        self._drain_sec, self._echo = drain_sec, SignalEcho()
        self.told_of_signals = -1
        """The descriptor that this process tells of its signals, which uvloop would take for itself."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        if self.told_of_signals >= 0:  # handlers run in uvicorn's next tick
            signal.set_wakeup_fd(self.told_of_signals, warn_on_full_buffer=False)
        new_protocol = partial(
            cast(Any, self.config.http_protocol_class),
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        accepting: list[Any] = [AcceptLoop(each, new_protocol, self.config.ssl) for each in sockets or []]
        self.servers = accepting

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._drain(sockets or [])
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal ends, whichever it is; for uvicorn it must be SIGINT."""
        if self._echo.is_echo(sig):
            return
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)

    async def _drain(self, sockets: list[socket.socket]) -> None:
        """Take nothing new, and return when nothing is open or the time is over."""
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()
        state = self.config.app.state  # type: ignore[union-attr]
        state.draining.begin()
        if state.riva is not None:
            state.riva.begin_to_stop()
        now = asyncio.get_running_loop().time
        until = now() + self._drain_sec
        while (self.server_state.tasks or (state.riva and state.riva.is_at_work)) and now() < until:
            if self.force_exit:
                return
            await asyncio.sleep(_LOOK_SEC)


@contextmanager
def _not_raised_again() -> Iterator[int]:
    """Ignore SIGINT and SIGTERM outside uvicorn's own handlers: uvicorn restores these after serving and raises the
    signal that stopped it once more, which must not count as a second Ctrl-C. Gives the descriptor that is told of
    signals, or -1."""
    if threading.current_thread() is not threading.main_thread():
        yield -1
        return
    told = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        for number, handler in before.items():
            signal.signal(number, handler)


def connections_for(settings: GatewaySettings) -> Connections:
    """The connections of a process of the gateway, none yet."""
    return Connections(http_connections(settings), RESERVE, header_sec=settings.header_timeout_sec)


def server_config(settings: GatewaySettings, connections: Connections) -> uvicorn.Config:
    """uvicorn's configuration; logging is left to the caller."""
    return uvicorn.Config(
        create_app(settings),
        # Both by name, whatever else is installed.
        loop="uvloop",
        http=partial(BoundedProtocol, connections),  # type: ignore[arg-type]
        ws=partial(WebSocketProtocol, ReadAhead(), connections.turns),  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=_LAST_WORDS_SEC,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        ws_max_size=_WEBSOCKET_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # audio hardly compresses, and the attempt costs time in every live stream
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
