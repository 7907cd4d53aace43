"""The answer to requests that are still under way when the grace period ends."""

from __future__ import annotations

import asyncio
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moulin.gateway.api_error import server_stopping
from moulin.gateway.error_forms import error_response


class Stopping:
    """The outermost ASGI middleware: uvicorn cancels requests then, and would say "Internal Server Error"."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
                response = error_response(refusal, scope)
                response.headers["connection"] = "close"
                await response(scope, receive, send)
            elif _is_event_stream(begun):
                text = f"data: {json.dumps(refusal.body())}\n\n"
                await send({"type": "http.response.body", "body": text.encode(), "more_body": False})
            else:
                raise  # half an answer can only be aborted


def _is_event_stream(begun: Message) -> bool:
    headers = {bytes(name).lower(): bytes(value) for name, value in begun.get("headers", ())}
    return headers.get(b"content-type", b"").startswith(b"text/event-stream")
