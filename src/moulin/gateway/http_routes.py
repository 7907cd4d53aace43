"""The routes of plain HTTP."""

from __future__ import annotations

from contextlib import suppress

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from moulin.audio.waveform import SAMPLE_RATE
from moulin.client.served_model import ServedModel
from moulin.demo.about import PURPOSES
from moulin.errors import ServerUnavailable
from moulin.gateway.api_error import ApiError, api_error, server_draining
from moulin.gateway.services import Services
from moulin.gateway.state_metrics import StateMetrics
from moulin.gateway.supervision import Supervision
from moulin.gateway.transcriptions import Transcriptions


def routes(services: Services) -> list[BaseRoute]:
    supervision = Supervision(services.settings.supervision_fd)

    async def health(_request: Request) -> Response:
        """Liveness: the gateway itself answers."""
        return JSONResponse({"status": "ok"})

    async def ready(_request: Request) -> Response:
        """Readiness: a model is ready on a server. With the state of supervised processes."""
        processes = supervision.processes()
        state = {"processes": processes} if processes else {}
        if services.draining.has_begun:
            refusal = server_draining()
            return JSONResponse({**refusal.body(), **state}, refusal.status, refusal.headers())
        if await services.triton.is_ready():
            return JSONResponse({"status": "ready", **state})
        faults = await services.triton.faults()
        reasons = supervision.summary() or "; ".join(dict.fromkeys(faults.values()))
        message = f"No model is ready on {', '.join(faults)}: {reasons}"
        refusal = api_error(ServerUnavailable(message))
        return JSONResponse({**refusal.body(), **state}, refusal.status, refusal.headers())

    async def metrics(_request: Request) -> Response:
        backends = {address: not fault for address, fault in (await services.triton.faults()).items()}
        state = StateMetrics(backends, services.triton.known_models)
        return PlainTextResponse(
            services.metrics.exposition() + state.exposition() + supervision.exposition(),
            media_type="text/plain; version=0.0.4; charset=utf-8",
        )

    async def models(_request: Request) -> Response:
        """The served models, and the operator's aliases."""
        served = [_model_object(model.name, model) for model in await services.catalog.models()]
        names = {model["id"] for model in served}
        for alias in services.settings.aliases:
            if alias not in names:
                with suppress(ApiError):  # of a model that is not served at the moment
                    served.append(_model_object(alias, await services.catalog.called(alias)))
        return JSONResponse({"object": "list", "data": served})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(_model_object(name, await services.catalog.called(name)))

    async def translations(_request: Request) -> Response:
        raise ApiError(
            404,
            "Expected a transcription, got a translation: the models here write down what they hear, in its language",
            code="unsupported_endpoint",
            hint="use /v1/audio/transcriptions",
        )

    return [
        Route("/healthz", health),
        Route("/readyz", ready),
        Route("/metrics", metrics),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/v1/audio/transcriptions", Transcriptions(services).transcribe, methods=["POST"]),
        Route("/v1/audio/translations", translations, methods=["POST"]),
    ]


def _model_object(name: str, model: ServedModel) -> dict[str, object]:
    """OpenAI's fields, and moulin's own. `created` is 0 where the repository does not tell it."""
    return {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": "moulin",
        "served_as": model.name,
        "streaming": model.streaming,
        "bundle": model.bundle,
        "languages": list(model.languages),
        "sample_rate": SAMPLE_RATE,
        "description": PURPOSES.get(model.bundle or ""),
        "hotwords": model.uses_hotwords,
        "alternatives": model.gives_alternatives,
    }
