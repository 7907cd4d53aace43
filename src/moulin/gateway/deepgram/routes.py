"""The routes for clients of Deepgram's."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from moulin.gateway.api_error import ApiError
from moulin.gateway.deepgram.errors import refusal
from moulin.gateway.deepgram.live import listen_live
from moulin.gateway.deepgram.recorded import listen_recorded
from moulin.gateway.error_forms import answer
from moulin.gateway.services import Services


def routes(services: Services) -> list[BaseRoute]:
    async def recorded(request: Request) -> Response:
        """A recording."""
        return await listen_recorded(services, request)

    async def live(websocket: WebSocket) -> None:
        """A live stream."""
        await listen_live(services, websocket)

    async def newer(request: Request) -> Response:
        return refusal(_newer(), request.state.request_id)

    async def newer_live(websocket: WebSocket) -> None:
        await answer(_newer(), websocket.scope, websocket.receive, websocket.send)

    return [
        Route("/v1/listen", recorded, methods=["POST"]),
        WebSocketRoute("/v1/listen", live),
        Route("/v2/listen", newer, methods=["GET", "POST"]),
        WebSocketRoute("/v2/listen", newer_live),
    ]


def _newer() -> ApiError:
    return ApiError(
        404,
        "Expected /v1/listen, got /v2/listen, whose turns are those of a model of Deepgram's",
        code="unsupported_endpoint",
        hint="choose a model such as nova-3 in your client, which then asks for /v1/listen",
    )
