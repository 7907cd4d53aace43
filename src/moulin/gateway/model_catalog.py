"""The served model for the name in a client's request."""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress
from dataclasses import replace

from moulin.client.protocol import streaming_name
from moulin.client.served_model import ServedModel
from moulin.gateway.api_error import ApiError
from moulin.gateway.model_names import is_realtime_only, pattern_of
from moulin.gateway.settings import ANY_LANGUAGE, GatewaySettings
from moulin.gateway.triton_servers import TritonServers
from moulin.quoting import listed, quoted


class ModelCatalog:
    """Models by their names in Triton, by the operator's aliases, and the default model also by OpenAI's names."""

    def __init__(self, triton: TritonServers, settings: GatewaySettings) -> None:
        self._triton, self._settings = triton, settings

    async def models(self) -> list[ServedModel]:
        """All served models. Raises ServerUnavailable."""
        return list((await self._models()).values())

    async def _models(self) -> dict[str, ServedModel]:
        """By their names, with the languages that the operator says."""
        models = await self._triton.models()
        if not (said := self._settings.model_languages):
            return models
        languages = () if ANY_LANGUAGE in said else said
        return {name: replace(model, languages=languages) for name, model in models.items()}

    async def offline(self, name: str | None) -> ServedModel:
        """The model for recordings called `name`, or by an alias. Raises ApiError or ServerUnavailable."""
        return await self._find(name, streaming=False)

    async def for_recordings(self, name: str | None) -> ServedModel:
        """The model for recordings: an offline one, or a streaming one that is named, or that is the only model.

        Raises ApiError or ServerUnavailable.
        """
        models = await self._models()
        if (meant := self._meant(name, models)) in models:
            return models[meant]
        if all(model.streaming for model in models.values()):
            return await self.streaming(name)
        return await self.offline(name)

    async def streaming(self, name: str | None) -> ServedModel:
        """The model for live streams called `name`, which may also be the name of the offline model beside it."""
        return await self._find(name, streaming=True)

    async def called(self, name: str) -> ServedModel:
        """The model called `name`, of either kind. Raises ApiError or ServerUnavailable."""
        finders = [self.for_recordings, self.streaming]
        for find in reversed(finders) if is_realtime_only(name) else finders:
            with suppress(ApiError):
                return await find(name)
        raise ApiError(
            404,
            f"There is no model {quoted(name)}",
            code="model_not_found",
            param="model",
            hint=f"the models are {listed([model.name for model in await self.models()], 20)}",
        )

    def _meant(self, name: str | None, models: Container[str]) -> str:
        """The served model's name, or one that is not served."""
        if name is None or name in models:
            return name or self._settings.default_model
        if (model := self._settings.aliases.get(name)) is not None:
            return model
        return name if pattern_of(name) is None else self._settings.default_model

    async def _find(self, name: str | None, *, streaming: bool) -> ServedModel:
        models = await self._models()
        wanted = self._meant(name, models)
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
