"""The application on uvicorn."""

from __future__ import annotations

import uvicorn

from moulin.errors import LaunchError
from moulin.gateway.app import create_app
from moulin.gateway.settings import GatewaySettings
from moulin.launch.ports import port_is_free

_GRACE_SEC = 10
"""For requests under way when the gateway is told to stop."""

_WEBSOCKET_MESSAGE_BYTES = 16 << 20
"""OpenAI's limit for one message with audio is 15 MiB."""


def run(settings: GatewaySettings) -> None:
    """Serve until SIGINT or SIGTERM; requests under way get ten seconds to finish. Raises LaunchError."""
    if settings.port and not port_is_free(settings.host, settings.port):
        raise LaunchError(
            f"Expected port {settings.port} on {settings.host} to be free for the gateway, got one in use",
            hint="stop what listens there, or choose another port",
        )
    uvicorn.Server(server_config(settings)).run()


def server_config(settings: GatewaySettings) -> uvicorn.Config:
    """Logging is the caller's."""
    return uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
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
