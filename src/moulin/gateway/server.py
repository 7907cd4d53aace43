"""The application on uvicorn."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from moulin.errors import LaunchError
from moulin.gateway.app import create_app
from moulin.gateway.settings import GatewaySettings

_GRACE_SEC = 10
"""For requests under way when the gateway is told to stop."""

_BACKLOG = 2048

_WEBSOCKET_MESSAGE_BYTES = 16 << 20
"""OpenAI's limit for one message with audio is 15 MiB."""


def listen(settings: GatewaySettings) -> socket.socket:
    """A socket on which any number of `run`s may serve together. Raises LaunchError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise LaunchError(
            f"Expected port {settings.port} on {settings.host} to be free for the gateway, got: {error.strerror}",
            hint="stop what listens there, or choose another port",
        ) from error


def run(settings: GatewaySettings, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; requests under way get ten seconds to finish."""
    server = uvicorn.Server(server_config(settings))
    with _not_raised_again():
        server.run([listener])


@contextmanager
def _not_raised_again() -> Iterator[None]:
    """uvicorn has handlers of its own while it serves, and in the end raises the signal again that has stopped it:
    nobody wants to know, and it is no second Ctrl-C. So what it finds and restores ignores them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def server_config(settings: GatewaySettings) -> uvicorn.Config:
    """Logging is the caller's."""
    return uvicorn.Config(
        create_app(settings),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_SEC,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        ws_max_size=_WEBSOCKET_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # audio hardly gets smaller, and every live stream would pay for the attempt
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
