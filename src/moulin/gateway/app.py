"""The gateway as an ASGI application: OpenAI's API and live speech in front of Triton.

`create_app` builds it. A request passes these layers in order:

    OtherPaths       `/openai/v1/…` is `/v1/…`, and `/v1/models/` is `/v1/models`
    Stopping         the answers of a gateway that drains, or whose time to do so is over
    RequestContext   an id (`request.state.request_id`), a line in the log, metrics, unexpected exceptions
    Access           API key, origin, rate; WebSockets are refused before they are accepted
    CORS             only with configured origins
    routes           `http_routes.routes(services)`, and `live_routes.routes(services)` for WebSockets and the page

The seam for routes is one function, `routes(services: Services) -> list[BaseRoute]`. Handlers use:

* `services.settings`: limits and times, see `GatewaySettings`.
* `await services.catalog.streaming(name)` (or `.offline(name)`): the served model for a client's `model`, or an
  ApiError 404 that lists the models. `None` is the default model.
* `services.triton.stream(model.name, request_id=..., **options)`: an `AsyncLiveStream` on one of the servers.
* `with services.limits.session(websocket.state.caller):` around a live session, which may be idle for an hour, and a
  `StreamPlace` while it has audio, or `services.limits.stream` around one that always has; ApiError 429 at the limit.
* `services.metrics`: `active_streams`, `first_partial_seconds`, `final_seconds`, `audio_seconds.labels("stream")`.
* `moulin.gateway.api_error.api_error(exception)`: any exception as an error for the client; `.status`, `.body()`.
* `services.ignored.note(names)`: the header that names fields which change nothing.
* `request.state.log` (a dict, if set): further fields for the request's line in the log.

HTTP handlers raise: MoulinErrors and HTTPExceptions become OpenAI's error body.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from moulin.errors import MoulinError
from moulin.gateway import client_secret_routes, docs_page, http_routes, ignored_fields, live_routes, warnings_header
from moulin.gateway.access import Access
from moulin.gateway.api_error import ApiError, api_error
from moulin.gateway.deepgram import routes as deepgram_routes
from moulin.gateway.error_forms import answer, error_response
from moulin.gateway.misplaced_paths import OtherPaths, method_hint, path_hint, socket_hint
from moulin.gateway.request_context import RequestContext
from moulin.gateway.riva.server import RivaServer
from moulin.gateway.services import Services
from moulin.gateway.settings import GatewaySettings
from moulin.gateway.stopping import Stopping
from moulin.launch.heartbeat import EVERY_SEC, Heartbeat
from moulin.quoting import cut


def create_app(settings: GatewaySettings) -> Starlette:
    """An application without global state: any number of them may run in a process.

    `state.riva` is the `RivaServer` that lives as long as it does, or None; `state.draining` begins its end.
    """
    services = Services.of(settings)
    riva = None if settings.riva_port is None else RivaServer(services)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        beating = asyncio.create_task(_beat())
        async with services.triton, services.recordings, riva or nullcontext():
            yield
        beating.cancel()
        services.tracing.close()

    app = Starlette(
        routes=[
            *http_routes.routes(services),
            *client_secret_routes.routes(services),
            *docs_page.routes(),
            *live_routes.routes(services),
            *deepgram_routes.routes(services),
            WebSocketRoute("/{path:path}", _unknown_socket),
        ],
        middleware=[
            Middleware(OtherPaths),
            Middleware(RequestContext, metrics=services.metrics, tracing=services.tracing),
            Middleware(Stopping, draining=services.draining),
            *_cors(settings),
            Middleware(Access, settings=settings, limits=services.limits),
        ],
        exception_handlers=_EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    app.state.riva, app.state.draining = riva, services.draining
    return app


async def _beat() -> None:
    """Show that the event loop runs: a supervisor starts a process anew whose loop hangs."""
    heartbeat = Heartbeat(by_itself=False)
    try:
        while True:
            heartbeat.beat()
            await asyncio.sleep(EVERY_SEC)
    finally:
        heartbeat.close()


def _cors(settings: GatewaySettings) -> list[Middleware]:
    if not settings.allow_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.allow_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("x-request-id", "retry-after", ignored_fields.HEADER, warnings_header.HEADER),
        )
    ]


_CODES = {404: "not_found", 405: "method_not_allowed"}


async def _unknown_socket(websocket: WebSocket) -> None:
    """A WebSocket at a path that has none."""
    message = f"There is no WebSocket at {cut(websocket.scope['path'])}"
    refusal = ApiError(404, message, code="not_found", hint=socket_hint(websocket.scope["path"]))
    await answer(refusal, websocket.scope, websocket.receive, websocket.send)


async def _answer_error(request: Request, error: Exception) -> Response:
    return error_response(api_error(error), request.scope)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{cut(request.method, 20)} {cut(request.scope['path'])}: {cut(error.detail, 200)}"
    hint, headers = None, dict(error.headers or {})
    if error.status_code == 404:
        hint = path_hint(request.scope["path"])
    elif error.status_code == 405:
        hint = method_hint(request.scope["path"], headers.get("Allow", ""))
    refusal = ApiError(error.status_code, message, code=_CODES.get(error.status_code), hint=hint)
    response = error_response(refusal, request.scope)
    response.headers.update(headers)
    return response


_EXCEPTION_HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    MoulinError: _answer_error,
    HTTPException: _answer_http_exception,
}
