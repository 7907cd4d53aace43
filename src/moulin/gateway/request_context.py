"""The context of every request: its id, its line in the log, its metrics, and the handling of unexpected exceptions."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Mapping
from contextvars import ContextVar
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moulin.gateway.api_error import api_error
from moulin.gateway.api_keys import KEY_NAME
from moulin.gateway.error_forms import error_response
from moulin.gateway.metrics import Metrics
from moulin.gateway.tracing import Tracing
from moulin.quoting import cut

logger = logging.getLogger(__name__)

REQUEST_ID: ContextVar[str] = ContextVar("moulin_request_id", default="")
"""The id of the current task's request; `request.state.request_id` is the same."""

# A client's id goes into logs and headers, so only harmless characters are accepted.
_SANE_ID = re.compile(r"[A-Za-z0-9_.:/+=@-]{1,128}")

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"}
_MOST_PATH = 200

_QUIET = ("/healthz", "/readyz", "/metrics")
"""Paths polled every few seconds, which are not logged."""


class RequestContext:
    """ASGI middleware around all others that answer. Uses the client's `X-Request-Id`, if any, and returns it in the
    response."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing) -> None:
        self._app, self._metrics, self._tracing = app, metrics, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = request_id_of(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        REQUEST_ID.set(request_id)
        KEY_NAME.set("")
        started, status = time.monotonic(), 0

        async def observed(message: Message) -> None:
            nonlocal status
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
                status = message.get("status", 101)
                MutableHeaders(scope=message).append("x-request-id", request_id)
            elif kind == "websocket.close" and status == 0:
                status = 403  # closed before being accepted
            await send(message)

        about = {"http.request.method": _method(scope), "url.path": _path(scope)}
        try:
            with self._tracing.request(_name(scope), headers, about | {"moulin.request_id": request_id}) as span:
                await self._app(scope, receive, observed)
                span.set_attribute("http.response.status_code", status)
        except Exception as error:
            logger.exception("The gateway failed")
            if status == 0 and scope["type"] == "http":
                await error_response(api_error(error), scope)(scope, receive, observed)
            elif status == 0:
                await observed({"type": "websocket.close", "code": 1011})
            else:
                raise  # the response has begun, and can only be aborted
        finally:
            self._report(scope, status, time.monotonic() - started)

    def _report(self, scope: Scope, status: int, seconds: float) -> None:
        client = scope.get("client")
        report_request(
            self._metrics,
            _method(scope),
            _path(scope),
            # Not the path, of which clients can make up any number.
            route=getattr(scope.get("route"), "path", "other"),
            status=status,
            seconds=seconds,
            client=client[0] if client else None,
            log=None if scope["path"] in _QUIET and status < 400 else scope["state"].get("log", {}),
        )


def request_id_of(headers: Mapping[str, str]) -> str:
    """The client's `X-Request-Id`, or a new id."""
    offered = headers.get("x-request-id", "")
    return offered if _SANE_ID.fullmatch(offered) else f"req_{secrets.token_hex(12)}"


def report_request(
    metrics: Metrics,
    method: str,
    path: str,
    *,
    route: str,
    status: int,
    seconds: float,
    client: str | None,
    log: Mapping[str, object] | None,
) -> None:
    """Count an answered request, for its key too, and write its line in the log, with the fields of `log`; None for no
    line.

    `method`, `route` and `status`, of HTTP, are of closed sets.
    """
    metrics.requests.labels(route, method, str(status)).inc()
    metrics.request_seconds.labels(route).observe(seconds)
    key = KEY_NAME.get()
    if key:
        metrics.key_requests.labels(key).inc()
    if log is None:
        return
    logger.info(
        "%s %s %d",
        method,
        path,
        status,
        extra={
            "method": method,
            "path": path,
            "status": status,
            "duration_ms": round(seconds * 1000, 1),
            "client": cut(client) if client else None,
            **({"key": key} if key else {}),
            **log,
        },
    )


def _method(scope: Scope) -> str:
    """The method, one of a closed set: a client can make up any number of others."""
    method: str = scope.get("method", "WEBSOCKET")
    return method if method in _METHODS else "other"


def _name(scope: Scope) -> str:
    return f"{_method(scope)} {_path(scope)}"


def _path(scope: Scope) -> str:
    """The path, cut, and URL-encoded so that it cannot inject lines into the log."""
    return quote(scope["path"][:_MOST_PATH], errors="replace")
