"""The served model for the name in a client's request."""

from __future__ import annotations

from moulin.client.protocol import streaming_name
from moulin.client.served_model import ServedModel
from moulin.gateway.api_error import ApiError
from moulin.gateway.settings import GatewaySettings
from moulin.gateway.triton_servers import TritonServers
from moulin.quoting import listed, quoted


class ModelCatalog:
    """Models by their names in Triton, and the default model also by OpenAI's names."""

    def __init__(self, triton: TritonServers, settings: GatewaySettings) -> None:
        self._triton, self._settings = triton, settings

    async def models(self) -> list[ServedModel]:
        """All served models. Raises ServerUnavailable."""
        return list((await self._triton.models()).values())

    async def offline(self, name: str | None) -> ServedModel:
        """The model for recordings called `name`, or by an alias. Raises ApiError or ServerUnavailable."""
        return await self._find(name, streaming=False)

    async def for_recordings(self, name: str | None) -> ServedModel:
        """The model for recordings: an offline one, or a streaming one that is named, or that is the only model.

        Raises ApiError or ServerUnavailable.
        """
        models = await self._triton.models()
        if name in models:
            return models[name]
        if all(model.streaming for model in models.values()):
            return await self.streaming(name)
        return await self.offline(name)

    async def streaming(self, name: str | None) -> ServedModel:
        """The model for live streams called `name`, which may also be the name of the offline model beside it."""
        return await self._find(name, streaming=True)

    async def _find(self, name: str | None, *, streaming: bool) -> ServedModel:
        models = await self._triton.models()
        wanted = name or self._settings.default_model
        if name in self._settings.aliases and name not in models:
            wanted = self._settings.default_model
        for candidate in (streaming_name(wanted), wanted) if streaming else (wanted,):
            if candidate in models and models[candidate].streaming == streaming:
                return models[candidate]
        fitting = [model.name for model in models.values() if model.streaming == streaming]
        if wanted == self._settings.default_model and len(fitting) == 1:
            return models[fitting[0]]  # the only one, under any name
        kind = "live streams" if streaming else "recordings"
        other = f"; {quoted(wanted)} is for {'recordings' if streaming else 'live streams'}" if wanted in models else ""
        raise ApiError(
            404,
            f"There is no model {quoted(name or wanted)} for {kind}{other}",
            code="model_not_found",
            param="model",
            hint=f"the models for {kind} are {listed(fitting, 20)}" if fitting else f"no model for {kind} is served",
        )
