"""The answers of a gateway that stops: to what is new, and to requests that are under way when its time is over."""

from __future__ import annotations

import asyncio
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moulin.gateway.api_error import server_draining, server_stopping
from moulin.gateway.draining import Draining
from moulin.gateway.error_forms import answer, error_response

_ANSWERED = ("/healthz", "/readyz", "/metrics")


class Stopping:
    """ASGI middleware. Connections that are kept alive can still send requests while the gateway drains.
    Those that take too long are cancelled by uvicorn, which would say "Internal Server Error"."""

    def __init__(self, app: ASGIApp, draining: Draining) -> None:
        self._app, self._draining = app, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._draining.has_begun and scope["type"] != "lifespan" and scope["path"] not in _ANSWERED:
            await answer(server_draining(), scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun: Message | None = None

        async def observed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = message
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except asyncio.CancelledError:
            refusal = server_stopping("request")
            if begun is None:
                await error_response(refusal, scope)(scope, receive, send)
            elif _is_event_stream(begun):
                text = f"data: {json.dumps(refusal.body())}\n\n"
                await send({"type": "http.response.body", "body": text.encode(), "more_body": False})
            else:
                raise  # half an answer can only be aborted


def _is_event_stream(begun: Message) -> bool:
    headers = {bytes(name).lower(): bytes(value) for name, value in begun.get("headers", ())}
    return headers.get(b"content-type", b"").startswith(b"text/event-stream")
