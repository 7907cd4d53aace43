"""Live speech to a gateway: `WS /v1/stream`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from moulin.arrays import Floats
from moulin.audio.waveform import check_waveform, in_16_bits
from moulin.client.gateway_address import GatewayAddress
from moulin.errors import ClientError, RequestRefused, ServerBusy, ServerUnavailable
from moulin.live_transcript import Segment, StreamUpdate
from moulin.quoting import cut

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

_PING_SEC = 20.0
"""How often the gateway is told that a client without audio is there."""
_END_SEC = 120.0
_CONNECT_SEC = 10.0


class GatewayStream:
    """A stream; a context manager, to be used by one thread."""

    def __init__(
        self,
        address: GatewayAddress,
        *,
        model: str | None,
        options: Mapping[str, Any],
        on_warning: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        """`options` are those of `StreamOptions`; without `model` it is the gateway's default one."""
        self._address, self._model, self._options, self._on_warning = address, model, options, on_warning
        self._open: Segment | None = None
        self._done = False
        self._leaving = threading.Event()

    def __enter__(self) -> Self:
        """Connect. Raises ClientError."""
        self._socket = self._connected()
        self._pinging = threading.Thread(target=self._ping, daemon=True)
        self._pinging.start()
        if self._options:
            self._send(json.dumps({"type": "options", "options": dict(self._options)}))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._socket.close()
        self._pinging.join()

    def send(self, samples: Floats) -> Iterator[StreamUpdate]:
        """Send samples, float32 [N], 16 kHz mono; the updates that have come. Raises ClientError, AudioError."""
        self._send(in_16_bits(check_waveform(samples)).astype("<i2").tobytes())
        while (message := self._received(0.0)) is not None:
            yield from self._updates(message)

    def finish(self) -> Iterator[StreamUpdate]:
        """Say that all has been sent; the last updates."""
        self._send(json.dumps({"type": "end"}))
        while not self._done:
            message = self._received(_END_SEC)
            if message is None:
                raise ClientError(f"The gateway has said nothing for {_END_SEC:g} s")
            yield from self._updates(message)

    def _connected(self) -> ClientConnection:
        from websockets.exceptions import InvalidStatus, WebSocketException
        from websockets.sync.client import connect

        chosen = {} if self._model is None else {"model": self._model}
        query = urlencode({**chosen, "encoding": "s16le", "sample_rate": 16_000})
        try:
            socket: ClientConnection = connect(
                f"{self._address.websocket('stream')}?{query}",
                additional_headers=self._address.headers,
                open_timeout=_CONNECT_SEC,
                compression=None,
            )
            return socket
        except InvalidStatus as error:
            answer = error.response
            raise self._address.refusal(
                answer.status_code, bytes(answer.body or b""), dict(answer.headers.raw_items())
            ) from None
        except (OSError, WebSocketException) as error:
            raise self._address.unreachable(error) from None

    def _ping(self) -> None:
        from websockets.exceptions import ConnectionClosed

        while not self._leaving.wait(_PING_SEC):
            try:
                self._socket.send('{"type": "ping"}')
            except (OSError, ConnectionClosed):
                return

    def _send(self, message: str | bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            self._socket.send(message)
        except ConnectionClosed:
            while (said := self._received(0.0)) is not None:  # why
                for _ in self._updates(said):
                    pass
            raise self._address.unreachable("the connection was closed") from None

    def _received(self, timeout_sec: float) -> str | bytes | None:
        from websockets.exceptions import ConnectionClosed

        try:
            message: str | bytes = self._socket.recv(timeout_sec)
            return message
        except TimeoutError:
            return None
        except ConnectionClosed as error:
            raise self._address.unreachable(error.rcvd.reason if error.rcvd else "the connection broke") from None

    def _updates(self, message: str | bytes) -> Iterator[StreamUpdate]:
        event = json.loads(message)
        match event["type"]:
            case "partial" | "final":
                segment = Segment.from_dict(event["segment"])
                self._open = None if segment.is_final else segment
                yield StreamUpdate((segment,), False, False, event["duration_sec"])
            case "endpoint":
                yield StreamUpdate((self._open,) if self._open else (), True, False, event["duration_sec"])
            case "done":
                self._done = True
                yield StreamUpdate((), False, True, event["duration_sec"])
            case "warning":
                self._on_warning(event["message"])
            case "error":
                raise _error(event)


def _error(event: Mapping[str, Any]) -> ClientError:
    message, hint = cut(event["message"], 2000), event.get("hint")
    match event.get("code"):
        case "server_busy":
            return ServerBusy(message, hint=hint)
        case "server_unavailable":
            return ServerUnavailable(message, hint=hint)
        case _:
            return RequestRefused(message, hint=hint)
