"""Every request gets an id, a line in the log, and a place in the metrics; what nobody foresaw ends here."""

from __future__ import annotations

import logging
import re
import secrets
import time
from contextvars import ContextVar
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moulin.gateway.api_error import api_error
from moulin.gateway.metrics import Metrics
from moulin.gateway.tracing import Tracing

logger = logging.getLogger(__name__)

REQUEST_ID: ContextVar[str] = ContextVar("moulin_request_id", default="")
"""The id of the request that this task works for; `request.state.request_id` is the same."""

# An id from outside goes into logs and headers: nothing but what an id needs.
_SANE_ID = re.compile(r"[A-Za-z0-9_.:/+=@-]{1,128}")

_QUIET = ("/healthz", "/readyz", "/metrics")
"""Asked every few seconds by machines: not worth a line."""


class RequestContext:
    """Outermost ASGI middleware. Takes `X-Request-Id` from the client where it sends one, and answers with it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing) -> None:
        self._app, self._metrics, self._tracing = app, metrics, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        offered = headers.get("x-request-id", "")
        request_id = offered if _SANE_ID.fullmatch(offered) else f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        REQUEST_ID.set(request_id)
        started, status = time.monotonic(), 0

        async def observed(message: Message) -> None:
            nonlocal status
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
                status = message.get("status", 101)
                MutableHeaders(scope=message).append("x-request-id", request_id)
            elif kind == "websocket.close" and status == 0:
                status = 403  # closed before it was accepted
            await send(message)

        about = {"http.request.method": scope.get("method", "GET"), "url.path": _path(scope)}
        try:
            with self._tracing.request(_name(scope), headers, about | {"moulin.request_id": request_id}) as span:
                await self._app(scope, receive, observed)
                span.set_attribute("http.response.status_code", status)
        except Exception as error:
            logger.exception("The gateway failed")
            if status == 0 and scope["type"] == "http":
                refusal = api_error(error)
                await JSONResponse(refusal.body(), refusal.status)(scope, receive, observed)
            elif status == 0:
                await observed({"type": "websocket.close", "code": 1011})
            else:
                raise  # the answer has begun: all that is left is to break it off
        finally:
            self._report(scope, status, time.monotonic() - started)

    def _report(self, scope: Scope, status: int, seconds: float) -> None:
        method = _method(scope)
        route = getattr(scope.get("route"), "path", "other")  # never the path itself: anybody can make up new ones
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if scope["path"] in _QUIET and status < 400:
            return
        client = scope.get("client")
        logger.info(
            "%s %s %d",
            method,
            _path(scope),
            status,
            extra={
                "method": method,
                "path": _path(scope),
                "status": status,
                "duration_ms": round(seconds * 1000, 1),
                "client": client[0] if client else None,
                **scope["state"].get("log", {}),
            },
        )


def _method(scope: Scope) -> str:
    method: str = scope.get("method", "WEBSOCKET")
    return method


def _name(scope: Scope) -> str:
    return f"{_method(scope)} {_path(scope)}"


def _path(scope: Scope) -> str:
    """Encoded, so that nobody writes lines into the log."""
    return quote(scope["path"])
