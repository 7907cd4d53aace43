"""One or several Triton servers: requests go to the least loaded one, streams stay on their server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from moulin.client import AsyncBundledStream, AsyncClient, AsyncLiveStream
from moulin.client.protocol import Audio
from moulin.client.served_model import ServedModel
from moulin.errors import ClientError, ServerUnavailable
from moulin.gateway.bundles import Bundles
from moulin.quoting import quoted
from moulin.transcript import Transcript

_AVOIDED_SEC = 1.0
"""The time for which a server that did not answer is used only if there is no other."""

_MODELS_KEPT_SEC = 5.0
_ASKED_FOR_SEC = 5.0
"""The timeout for a server's list of models, after which it counts as stopped or unreachable."""


@dataclass(eq=False, slots=True)
class _Server:
    client: AsyncClient
    bundles: Bundles
    models: dict[str, ServedModel] = field(default_factory=dict)
    under_way: int = 0
    avoided_until: float = 0.0


class TritonServers:
    """Shared by all handlers; an asynchronous context manager that must be entered in the event loop.

    A request is not retried on the same server, but on another one that has the model.
    """

    def __init__(
        self, urls: Sequence[str], *, timeout_sec: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._urls, self._timeout_sec, self._clock = urls, timeout_sec, clock
        self._servers: list[_Server] = []
        self._models_until = 0.0
        self._refreshing = asyncio.Lock()

    async def __aenter__(self) -> TritonServers:
        clients = [AsyncClient(url, timeout_sec=self._timeout_sec) for url in self._urls]
        self._servers = [_Server(client, Bundles(client)) for client in clients]
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            await server.bundles.close()
            await server.client.close()

    @property
    def count(self) -> int:
        """The number of servers."""
        return len(self._urls)

    async def models(self) -> dict[str, ServedModel]:
        """The served models by name, at most seconds old. A server that does not answer keeps its last known models.

        Raises ServerUnavailable where no server has ever answered.
        """
        known = self._known()
        if not (known and self._refreshing.locked()):  # known models are used without waiting for a refresh
            async with self._refreshing:
                if self._clock() >= self._models_until:
                    await self._refresh()
            known = self._known()
        return known

    async def faults(self) -> dict[str, str]:
        """For each server's address why it cannot be used now; empty where it answers and serves a moulin model."""
        found = await asyncio.gather(*map(_offered, self._servers))
        return dict(zip(self._urls, map(_fault, found), strict=True))

    async def is_ready(self) -> bool:
        """Whether any of them can be used."""
        return not all((await self.faults()).values())

    async def transcribe(
        self, model: str, audio: Audio, options: Mapping[str, Any] | None = None, *, request_id: str = ""
    ) -> Transcript:
        """The transcript of one piece, no longer than the model takes at once.

        Raises ServerUnavailable where no server answers, ServerBusy, RequestRefused, or another ClientError.
        """
        error: ServerUnavailable | None = None
        for server in self._by_preference(model):
            try:
                with self._asking(server):
                    (transcript,) = await server.client.transcribe_batch(
                        [audio], options, model=model, request_id=request_id
                    )
                return transcript
            except ServerUnavailable as unavailable:
                error = unavailable
        raise error or ServerUnavailable(f"No Triton server offers the model {quoted(model)}")

    @asynccontextmanager
    async def stream(
        self, model: str, *, request_id: str = "", **options: Any
    ) -> AsyncIterator[AsyncLiveStream | AsyncBundledStream]:
        """A live stream with a streaming model, on one server until its end. `options` are those of `StreamOptions`.

        Streams share few requests where the model takes bundles; then `request_id` goes with none. Nothing of the
        stream is sent before the first `send`, which raises what `transcribe` does.
        """
        error: ServerUnavailable | None = None
        for server in self._by_preference(model):
            try:
                with self._asking(server):
                    opened = await _opened(server, model, options)
            except ServerUnavailable as unavailable:
                error = unavailable
                continue
            with self._asking(server):
                if opened is None:
                    async with server.client.stream(model=model, request_id=request_id, **options) as stream:
                        yield stream
                else:
                    try:
                        yield opened
                    finally:
                        await opened.close()
            return
        raise error or ServerUnavailable(f"No Triton server offers the model {quoted(model)}")

    async def _refresh(self) -> None:
        found = await asyncio.gather(*map(_offered, self._servers))
        errors = []
        for server, models in zip(self._servers, found, strict=True):
            if isinstance(models, ClientError):
                errors.append(models)
            else:
                server.models = {model.name: model for model in models}
        if len(errors) < len(found) or self._known():
            self._models_until = self._clock() + _MODELS_KEPT_SEC
        else:
            raise errors[0]

    def _known(self) -> dict[str, ServedModel]:
        return {name: model for server in self._servers for name, model in server.models.items()}

    def _by_preference(self, model: str) -> list[_Server]:
        now = self._clock()
        return sorted(
            (server for server in self._servers if model in server.models),
            key=lambda server: (server.avoided_until > now, server.under_way),
        )

    @contextmanager
    def _asking(self, server: _Server) -> Iterator[None]:
        server.under_way += 1
        try:
            yield
        except ServerUnavailable:
            server.avoided_until = self._clock() + _AVOIDED_SEC
            raise
        finally:
            server.under_way -= 1


async def _opened(server: _Server, model: str, options: Mapping[str, Any]) -> AsyncBundledStream | None:
    """A stream of the server's bundle; None for a model that takes none. Raises ClientError."""
    if not server.models[model].lanes:
        return None
    bundle = await server.bundles.of(model)
    return await bundle.open(**options)


def _fault(offered: list[ServedModel] | ClientError) -> str:
    if isinstance(offered, ClientError):
        return str(offered)
    return "" if offered else "it serves no model of moulin"


async def _offered(server: _Server) -> list[ServedModel] | ClientError:
    """The models that the server serves now, or the error of asking it."""
    try:
        async with asyncio.timeout(_ASKED_FOR_SEC):
            return await server.client.models()
    except TimeoutError:
        return ServerUnavailable(f"The server at {server.client.url} does not answer")
    except ClientError as error:
        return error
