"""The bundles of live streams to one server: one for each model, opened when it is first needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from moulin.client.async_bundle import GATHER_SEC, AsyncStreamBundle, Rescue
from moulin.client.async_client import AsyncClient
from moulin.errors import ClientError, ServerUnavailable

_AGAIN_SEC = 0.5
"""The time after which a server that could not be reached is tried again."""
_HEALED_SEC = 1.0
"""The time from one try to the next to open lost bundles again, so that no stream has to try it."""


class ServerBundles:
    """All streams of this process to a server share its bundles; any number of tasks may use them."""

    def __init__(
        self,
        client: AsyncClient,
        rescue: Callable[[str], Rescue],
        *,
        lanes: int | None = None,
        gather_sec: float = GATHER_SEC,
    ) -> None:
        """`rescue` gives the `Rescue` of streams with a model; `lanes` and `gather_sec` as for `AsyncClient.bundle`."""
        self.client, self._rescue = client, rescue
        self._lanes, self._gather_sec = lanes, gather_sec
        self._of_models: dict[str, AsyncStreamBundle] = {}
        self._opening = asyncio.Lock()
        self._healing: asyncio.Task[None] | None = None
        self._failed_at, self._failure = -_AGAIN_SEC, ServerUnavailable("")

    def ready(self, model: str) -> AsyncStreamBundle | None:
        """The bundle for `model`, if it is open and takes new streams."""
        bundle = self._of_models.get(model)
        return bundle if bundle is not None and bundle.lanes and not bundle.is_draining else None

    def is_lost(self, model: str) -> bool:
        """Whether the bundle for `model` is lost, and not open again."""
        bundle = self._of_models.get(model)
        return bundle is not None and bundle.is_lost

    def load(self, model: str) -> float:
        """The share of the server's places for `model` that are taken, 0 to 1; 0 where it is not known."""
        bundle = self._of_models.get(model)
        return bundle.load if bundle is not None else 0.0

    async def of(self, model: str) -> AsyncStreamBundle:
        """The bundle for `model`, which takes bundles. Raises ClientError."""
        if self._healing is None:
            self._healing = asyncio.create_task(self._heal())
        async with self._opening:
            bundle = self._of_models.get(model)
            if bundle is None or bundle.is_lost:  # then the server may have other instances now
                opened = await self._opened(model)
                if bundle is not None:
                    await bundle.close()
                bundle = self._of_models[model] = opened
        return bundle

    @property
    def num_streams(self) -> int:
        """Streams that are open."""
        return sum(bundle.num_streams for bundle in self._of_models.values())

    async def close(self) -> None:
        if self._healing is not None:
            self._healing.cancel()
            await asyncio.gather(self._healing, return_exceptions=True)
        for bundle in self._of_models.values():
            await bundle.close()

    async def _heal(self) -> None:
        while True:
            await asyncio.sleep(_HEALED_SEC)
            for model in [model for model in self._of_models if self.is_lost(model)]:
                with suppress(ClientError):
                    await self.of(model)

    async def _opened(self, model: str) -> AsyncStreamBundle:
        """A new bundle with its lanes. Raises ClientError; for a while after a failure at once, so that not everyone
        who waits for the lock waits for the server too."""
        now = asyncio.get_running_loop().time
        if now() - self._failed_at < _AGAIN_SEC:
            raise ServerUnavailable(self._failure.message, hint=self._failure.hint)
        try:
            bundle = await self.client.open_bundle(
                model, lanes=self._lanes, gather_sec=self._gather_sec, rescue=self._rescue(model)
            )
            await bundle.open_lanes()
        except ServerUnavailable as error:
            self._failed_at, self._failure = now(), error
            raise
        return bundle
