"""What is answered over plain HTTP."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from moulin.errors import ServerUnavailable
from moulin.gateway.services import Services


def routes(services: Services) -> list[BaseRoute]:
    async def health(_request: Request) -> Response:
        """Whether the gateway itself is alive."""
        return JSONResponse({"status": "ok"})

    async def ready(_request: Request) -> Response:
        """Whether a recording would be transcribed now."""
        if not await services.triton.is_ready():
            raise ServerUnavailable(f"No model is ready on {', '.join(services.settings.triton)}")
        return JSONResponse({"status": "ready"})

    async def metrics(_request: Request) -> Response:
        return PlainTextResponse(services.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return [Route("/healthz", health), Route("/readyz", ready), Route("/metrics", metrics)]
