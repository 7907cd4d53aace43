"""The gRPC server."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import grpc

from moulin.errors import LaunchError
from moulin.gateway.connection_limit import riva_connections
from moulin.gateway.riva.call import Behaviour, Calls
from moulin.gateway.riva.health import Health
from moulin.gateway.riva.messages import SERVICE, ConfigRequest, RecognizeRequest, StreamingRecognizeRequest
from moulin.gateway.riva.model_config import model_config
from moulin.gateway.riva.recognize import recognize
from moulin.gateway.riva.streaming_recognize import streaming_recognize
from moulin.gateway.services import Services
from moulin.gateway.settings import GatewaySettings

_LATE_SEC = 0.3
"""Time in which calls that begin as the gateway stops are refused with a message."""
_LAST_WORDS_SEC = 1.0
"""Time for the answers to those that are not."""
MOST_MESSAGE_BYTES = 64 << 20
"""The limit on a message, which is held in memory: half an hour of 16 kHz in 16 bits."""

_ALIVE_MS, _ANSWER_MS, _OFTEN_MS = 30_000, 20_000, 5_000
"""How often a quiet connection is asked whether it lives, how long it may take, and how often it may ask."""
_IDLE_MS = 300_000
"""A connection without calls is closed after this; clients connect again by themselves."""


class RivaServer:
    """Riva's service beside the HTTP server, in its event loop; an asynchronous context manager."""

    def __init__(self, services: Services) -> None:
        self._services, self._calls, self._health = services, Calls(services), Health(services)
        self._server: Any = None
        self._stopping: asyncio.Task[None] | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        """Listen. Raises LaunchError."""
        settings = self._services.settings
        self._server = grpc.aio.server(options=_options(settings), maximum_concurrent_rpcs=_most_calls(settings))
        self._server.add_generic_rpc_handlers((_handlers(self._calls), self._health.handlers()))
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            self.port = self._listen(f"{host}:{settings.riva_port}")
        except RuntimeError as error:
            raise LaunchError(
                f"Expected port {settings.riva_port} on {settings.host} to be free for Riva's gRPC, got: {error}",
                hint="stop what listens there, or choose another port with --riva-port",
            ) from None
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.begin_to_stop()
        assert self._stopping is not None
        await self._stopping

    @property
    def is_at_work(self) -> bool:
        """Whether calls are under way."""
        return self._calls.are_under_way

    def begin_to_stop(self) -> None:
        """Take no more calls; those under way may go on for `drain_sec`. Idempotent."""
        if self._server is not None and self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())

    async def _stop(self) -> None:
        self._health.stop()
        self._calls.refuse()
        await asyncio.sleep(_LATE_SEC)  # what is on its way gets an answer of ours instead of none
        drain_sec = self._services.settings.drain_sec
        stopping = asyncio.create_task(self._server.stop(drain_sec + _LAST_WORDS_SEC))
        await asyncio.wait({stopping}, timeout=drain_sec)
        self._calls.end()
        await stopping

    def _listen(self, address: str) -> int:
        settings = self._services.settings
        if settings.tls_certificate is None or settings.tls_key is None:
            return int(self._server.add_insecure_port(address))
        pair = (settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())
        return int(self._server.add_secure_port(address, grpc.ssl_server_credentials([pair])))


def _handlers(calls: Calls) -> Any:
    """Handlers that read requests by themselves, as bytes: of a client that is refused nothing more is received."""

    def one(name: str, behaviour: Behaviour, request: Any) -> Any:
        return grpc.stream_unary_rpc_method_handler(
            calls.handler(name, behaviour, request), response_serializer=_serialized
        )

    def many(name: str, behaviour: Behaviour, request: Any) -> Any:
        return grpc.stream_stream_rpc_method_handler(
            calls.handler(name, behaviour, request), response_serializer=_serialized
        )

    methods = {
        "Recognize": (one, recognize, RecognizeRequest),
        "StreamingRecognize": (many, streaming_recognize, StreamingRecognizeRequest),
        "GetRivaSpeechRecognitionConfig": (one, model_config, ConfigRequest),
    }
    return grpc.method_handlers_generic_handler(
        SERVICE, {name: make(name, behaviour, request) for name, (make, behaviour, request) in methods.items()}
    )


def _serialized(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _most_calls(settings: GatewaySettings) -> int:
    """A few beyond the limits, to which `Limits` gives an answer of its own."""
    return 2 * (settings.max_requests + settings.max_streams)


def _options(settings: GatewaySettings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 1),  # workers share the port, which `moulin gateway` has found free
        ("grpc.max_receive_message_length", min(MOST_MESSAGE_BYTES, settings.max_upload_bytes)),
        ("grpc.max_concurrent_streams", _most_calls(settings)),
        ("grpc.max_allowed_incoming_connections", riva_connections(settings)),
        ("grpc.server_handshake_timeout_ms", round(settings.header_timeout_sec * 1000)),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        ("grpc.keepalive_time_ms", _ALIVE_MS),
        ("grpc.keepalive_timeout_ms", _ANSWER_MS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _OFTEN_MS),
    ]
