"""One or several Triton servers: new work goes to the one with the smallest load, streams stay on their server while it
lives and go on with another when it is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from moulin.client import AsyncBundledStream, AsyncClient, AsyncLiveStream
from moulin.client.moves import Outcome, StreamMoves
from moulin.client.protocol import Audio
from moulin.client.replay import KEPT_BYTES, ReplayMemory
from moulin.client.served_model import ServedModel
from moulin.client.server_bundles import ServerBundles
from moulin.errors import ClientError, ServerBusy, ServerUnavailable
from moulin.gateway.discovery import Discovery, Resolve, resolve
from moulin.gateway.metrics import Metrics
from moulin.quoting import quoted
from moulin.transcript import Transcript

_AVOIDED_SEC = 1.0
"""The time for which a server that did not answer is used only if there is no other; it doubles each time."""
_AVOIDED_AT_MOST_SEC = 16.0

_MODELS_KEPT_SEC = 5.0
_ASKED_FOR_SEC = 5.0
"""The timeout for a server's list of models, after which it counts as stopped or unreachable."""
_WAIT_SEC = 0.5
"""The longest wait for newer models than those that are known."""
_DISCOVERED_SEC = 5.0
_JITTER = 0.2
"""Names are looked up every so many seconds, a fifth sooner or later: gateways that began together do not stay so."""
_TENDED_SEC = 1.0


@dataclass(eq=False, slots=True)
class _Server:
    client: AsyncClient
    bundles: ServerBundles
    models: dict[str, ServedModel] = field(default_factory=dict)
    under_way: int = 0
    avoided_until: float = 0.0
    failures: int = 0
    """Since its last answer."""

    def load(self, model: str) -> float:
        """What decides which server gets new work: requests under way, or the share of places that streams take."""
        takes_bundles = model in self.models and self.models[model].lanes
        return self.bundles.load(model) if takes_bundles else float(self.under_way)

    @property
    def is_at_work(self) -> bool:
        return bool(self.under_way or self.bundles.num_streams)

    async def close(self) -> None:
        await self.bundles.close()
        await self.client.close()


class TritonServers:
    """Shared by all handlers; an asynchronous context manager that must be entered in the event loop.

    A request is not retried on the same server, but on another one that has the model. A server whose address is not
    listed any more gets no new work, and is kept until its streams and requests are done.
    """

    def __init__(
        self,
        given: Sequence[str],
        *,
        timeout_sec: float | None = None,
        kept_bytes: int = KEPT_BYTES,
        metrics: Metrics | None = None,
        resolve: Resolve = resolve,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`given` are addresses, and names in DNS (`Discovery`). `kept_bytes` of streams' audio are kept, for another
        server if theirs is lost."""
        self._given, self._timeout_sec, self._clock = given, timeout_sec, clock
        self._metrics = metrics or Metrics()
        self._discovery = Discovery(given, resolve, self._metrics)
        self._servers: dict[str, _Server] = {}
        self._departed: dict[str, _Server] = {}
        self._memory = ReplayMemory(kept_bytes)
        self._moves = StreamMoves(self._receivers, self._memory, note=self._note)
        self._models_until = 0.0
        self._refreshing: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> TritonServers:
        await self._discover()
        self._tasks = [asyncio.create_task(self._tend())]
        if self._discovery.changes:
            self._tasks.append(asyncio.create_task(self._keep_discovering()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._moves.close()
        for server in (*self._servers.values(), *self._departed.values()):
            await server.close()

    @property
    def count(self) -> int:
        """The number of addresses and names that were given."""
        return len(self._given)

    async def models(self) -> dict[str, ServedModel]:
        """The served models by name, at most seconds old. A server that does not answer keeps its last known models.

        Raises ServerUnavailable where no server has ever answered.
        """
        known, refreshing = self._known(), self._refreshing
        if self._clock() >= self._models_until:
            if refreshing is None:
                refreshing = self._refreshing = asyncio.create_task(self._refresh())
                refreshing.add_done_callback(self._refreshed)
                if known:  # which need not wait for a server that does not answer
                    await asyncio.wait({refreshing}, timeout=_WAIT_SEC)
            if not known:
                await asyncio.shield(refreshing)
        return self._known()

    @property
    def known_models(self) -> list[ServedModel]:
        """The models of every server, as last heard: one of two servers is there twice."""
        return [model for server in self._servers.values() for model in server.models.values()]

    async def faults(self) -> dict[str, str]:
        """For each server's address why it cannot be used now; empty where it answers and serves a moulin model."""
        servers = dict(self._servers)
        found = await asyncio.gather(*map(_offered, servers.values()))
        for server, models in zip(servers.values(), found, strict=True):
            if not isinstance(models, ClientError):
                server.models = {model.name: model for model in models}
        return dict(zip(servers, map(_fault, found), strict=True))

    async def is_ready(self) -> bool:
        """Whether a server answers now and serves a moulin model."""
        asked = [asyncio.create_task(_offered(server)) for server in self._servers.values()]
        try:
            for answer in asyncio.as_completed(asked):
                if isinstance(models := await answer, list) and models:
                    return True
            return False
        finally:
            for task in asked:
                task.cancel()

    async def transcribe(
        self, model: str, audio: Audio, options: Mapping[str, Any] | None = None, *, request_id: str = ""
    ) -> Transcript:
        """The transcript of one piece, no longer than the model takes at once.

        Raises ServerUnavailable where no server answers, ServerBusy, RequestRefused, or another ClientError.
        """
        error: ClientError | None = None
        for server in self._by_preference(model):
            try:
                with self._asking(server):
                    (transcript,) = await server.client.unless_lost(
                        server.client.transcribe_batch([audio], options, model=model, request_id=request_id)
                    )
                return transcript
            except (ServerUnavailable, ServerBusy) as refusal:
                error = refusal
        raise error or self._no_server(model)

    @asynccontextmanager
    async def stream(
        self, model: str, *, request_id: str = "", **options: Any
    ) -> AsyncIterator[AsyncLiveStream | AsyncBundledStream]:
        """A live stream with a streaming model. `options` are those of `StreamOptions`.

        Streams share few requests where the model takes bundles; then `request_id` goes with none, and a stream moves
        to another server when its own is lost. Nothing of the stream is sent before the first `send`, which raises what
        `transcribe` does.
        """
        error: ClientError | None = None
        for server in self._by_preference(model):
            try:
                with self._asking(server):
                    opened = await _opened(server, model, options)
            except (ServerUnavailable, ServerBusy) as refusal:
                error = refusal
                continue
            if opened is None:
                with self._asking(server):
                    async with server.client.stream(model=model, request_id=request_id, **options) as stream:
                        yield stream
            else:
                try:
                    yield opened
                finally:
                    await opened.close()
            return
        raise error or self._no_server(model)

    # -------------------------------------------------------------------------------------------------------- addresses

    async def _keep_discovering(self) -> None:
        while True:
            await asyncio.sleep(_DISCOVERED_SEC * random.uniform(1 - _JITTER, 1 + _JITTER))
            await self._discover()

    async def _discover(self) -> None:
        """Have the servers that are listed now."""
        await self._discovery.look()
        addresses = self._discovery.addresses()
        for address in self._servers.keys() - set(addresses):
            self._departed[address] = self._servers.pop(address)
        for address in addresses:
            if address not in self._servers:
                known = address in self._departed
                self._servers[address] = self._departed.pop(address) if known else self._new(address)
                self._models_until = 0.0

    def _new(self, address: str) -> _Server:
        client = AsyncClient(address, timeout_sec=self._timeout_sec)
        return _Server(client, ServerBundles(client, self._moves.rescue))

    async def _tend(self) -> None:
        """Part with the servers that have nothing more to do, and publish what is."""
        while True:
            for address, server in list(self._departed.items()):
                if not server.is_at_work:
                    del self._departed[address]
                    await server.close()
            metrics = self._metrics
            metrics.servers.labels("listed").set(len(self._servers))
            metrics.servers.labels("departed").set(len(self._departed))
            metrics.move_buffer_bytes.set(self._memory.used)
            metrics.unmovable_streams.set(self._memory.unmovable)
            await asyncio.sleep(_TENDED_SEC)

    # ----------------------------------------------------------------------------------------------------------- models

    async def _refresh(self) -> None:
        servers = list(self._servers.values())
        found = await asyncio.gather(*map(_offered, servers))
        errors = []
        for server, models in zip(servers, found, strict=True):
            if isinstance(models, ClientError):
                errors.append(models)
            else:
                server.models = {model.name: model for model in models}
        if len(errors) < len(found) or self._known():
            self._models_until = self._clock() + _MODELS_KEPT_SEC
        else:
            raise errors[0] if errors else ServerUnavailable(f"No address is known for {', '.join(self._given)}")

    def _refreshed(self, refreshing: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not refreshing.cancelled():
            refreshing.exception()  # for those who wait; where nobody does, it is nothing to complain about

    def _known(self) -> dict[str, ServedModel]:
        return {name: model for server in self._servers.values() for name, model in server.models.items()}

    # ----------------------------------------------------------------------------------------------------------- choice

    def _by_preference(self, model: str) -> list[_Server]:
        now = self._clock()
        return sorted(
            (server for server in self._servers.values() if model in server.models),
            key=lambda server: (
                server.avoided_until > now or server.bundles.is_lost(model),
                server.load(model),
                random.random(),
            ),
        )

    def _receivers(self, model: str) -> list[ServerBundles]:
        return [server.bundles for server in self._by_preference(model)]

    @contextmanager
    def _asking(self, server: _Server) -> Iterator[None]:
        server.under_way += 1
        try:
            yield
        except ServerUnavailable:
            avoided_sec = min(_AVOIDED_SEC * 2**server.failures, _AVOIDED_AT_MOST_SEC)
            server.avoided_until, server.failures = self._clock() + avoided_sec, server.failures + 1
            raise
        else:
            server.failures = 0
        finally:
            server.under_way -= 1

    def _no_server(self, model: str) -> ServerUnavailable:
        return ServerUnavailable(f"No Triton server offers the model {quoted(model)}")

    def _note(self, outcome: Outcome, seconds: float) -> None:
        metrics = self._metrics
        match outcome:
            case "moved":
                metrics.moved_streams.inc()
                metrics.move_seconds.observe(seconds)
            case "elsewhere":
                metrics.streams_elsewhere.inc()
            case _:
                metrics.lost_streams.labels(outcome).inc()


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
