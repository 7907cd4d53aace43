"""Many streams of speech to several servers, for asyncio. A stream that loses its server goes on with another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from moulin.client.async_bundle import GATHER_SEC, AsyncBundledStream
from moulin.client.async_client import AsyncClient
from moulin.client.moves import PATIENCE_SEC, Note, StreamMoves
from moulin.client.protocol import DEFAULT_MODEL
from moulin.client.replay import KEPT_BYTES, ReplayMemory
from moulin.client.server_bundles import ServerBundles
from moulin.errors import ClientError, OptionsError, ServerBusy, ServerUnavailable

_AVOIDED_SEC = 1.0
"""The time for which a server that did not answer is used only if there is no other."""


class AsyncStreamPool:
    """`AsyncStreamBundle` over several servers with the same models.

        async with AsyncStreamPool(["asr-1:8001", "asr-2:8001"]) as pool:
            stream = await pool.open()
            async for samples in microphone:
                print(await stream.send(samples))
            print((await stream.finish()).text)

    A new stream goes to the server with the smallest share of its places taken. Where a server is lost its streams are
    said again to another, from their last final segment on: the next update comes late, and numbers and times go on.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        model: str = DEFAULT_MODEL,
        lanes: int | None = None,
        gather_sec: float = GATHER_SEC,
        timeout_sec: float | None = None,
        kept_bytes: int = KEPT_BYTES,
        patience_sec: float = PATIENCE_SEC,
        note: Note = lambda _outcome, _seconds: None,
    ) -> None:
        """To be made in a running event loop. `model` as for `Client`. `kept_bytes` of audio are kept for moves, and of
        a stream 30 s; one of which more would be needed ends with its server. One that no server takes for
        `patience_sec` ends. `note` learns what became of streams that lost their server."""
        if not urls:
            raise OptionsError("Expected the address of at least one server, got none")
        self._model, self._streaming_model = model, ""
        self._moves = StreamMoves(
            lambda _model: self._by_preference(), ReplayMemory(kept_bytes), patience_sec=patience_sec, note=note
        )
        clients = [AsyncClient(url, model=model, timeout_sec=timeout_sec) for url in urls]
        self._servers = [
            ServerBundles(client, self._moves.rescue, lanes=lanes, gather_sec=gather_sec) for client in clients
        ]
        self._avoided_until: dict[ServerBundles, float] = {}

    async def open(self, **options: Any) -> AsyncBundledStream:
        """A stream on one of the servers; see `AsyncStreamBundle.open`. Raises ClientError where none answers."""
        error: ClientError | None = None
        for server in self._by_preference():
            try:
                bundle = await server.of(await self._streaming(server.client))
                return await bundle.open(**options)
            except (ServerUnavailable, ServerBusy) as refusal:
                self._avoided_until[server] = asyncio.get_running_loop().time() + _AVOIDED_SEC
                error = refusal
        assert error is not None
        raise error

    async def close(self) -> None:
        """End all lanes, and with them the streams that are open."""
        await self._moves.close()
        for server in self._servers:
            await server.close()
            await server.client.close()

    async def _streaming(self, client: AsyncClient) -> str:
        """The model's name, for which the first server that answers is asked."""
        if not self._streaming_model:
            self._streaming_model = await client.streaming_model()
        return self._streaming_model

    def _by_preference(self) -> list[ServerBundles]:
        now = asyncio.get_running_loop().time()
        return sorted(
            self._servers,
            key=lambda server: (
                self._avoided_until.get(server, 0.0) > now or server.is_lost(self._streaming_model),
                server.load(self._streaming_model),
                random.random(),
            ),
        )

    async def __aenter__(self) -> AsyncStreamPool:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
