"""The bundles of live streams to one server: one for each model, opened when it is first needed."""

from __future__ import annotations

import asyncio

from moulin.client import AsyncClient, AsyncStreamBundle


class Bundles:
    """All streams of this process to a server share its bundles; any number of tasks may use them."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._of_models: dict[str, AsyncStreamBundle] = {}
        self._opening = asyncio.Lock()

    async def of(self, model: str) -> AsyncStreamBundle:
        """The bundle for `model`, which takes bundles. Raises ClientError."""
        async with self._opening:
            bundle = self._of_models.get(model)
            if bundle is None or bundle.is_lost:  # then the server may have other instances now
                opened = await self._client.open_bundle(model)
                if bundle is not None:
                    await bundle.close()
                bundle = self._of_models[model] = opened
        return bundle

    async def close(self) -> None:
        for bundle in self._of_models.values():
            await bundle.close()
