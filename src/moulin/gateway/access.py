"""Who may call: API keys, the pages that may call from a browser, and how often."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from moulin.gateway.api_error import ApiError
from moulin.gateway.limits import Limits
from moulin.gateway.settings import GatewaySettings, is_loopback

_KEY_SUBPROTOCOL = "openai-insecure-api-key."
"""How a browser, which cannot set headers of a WebSocket, sends a key: OpenAI's name for it."""

# Health is asked by machines without keys. The page asks its user for one.
_OPEN_PATHS = ("/", "/healthz", "/readyz", "/favicon.ico")
_OPEN_FOLDER = "/page/"


class Access:
    """ASGI middleware before every route, HTTP and WebSocket alike: whoever gets through may be answered.

    A WebSocket is refused before it is accepted, with the same status and body as HTTP.
    """

    def __init__(self, app: ASGIApp, settings: GatewaySettings, limits: Limits) -> None:
        self._app, self._settings, self._limits = app, settings, limits
        self._keys = [key.encode() for key in settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._check(HTTPConnection(scope))
        except ApiError as error:
            await _refuse(error, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, connection: HTTPConnection) -> None:
        path = connection.url.path
        if connection.scope["type"] == "websocket" or (path.startswith("/v1/") and not self._keys):
            self._check_origin(connection.headers)
        if connection.scope["type"] == "http" and self._is_open(path, connection.scope["method"]):
            return
        caller = connection.client.host if connection.client else ""
        if self._keys:
            caller = self._key_number(_offered_key(connection.headers))
        if path.startswith("/v1/"):
            self._limits.count(caller)

    def _is_open(self, path: str, method: str) -> bool:
        """Whether everybody may have this."""
        return path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER) or method == "OPTIONS"

    def _key_number(self, offered: str) -> str:
        """Which of the keys it is; all are compared, so that the time says nothing. Raises ApiError."""
        if not offered:
            raise ApiError(
                401, "Expected an API key, got none", code="missing_api_key", hint="send 'Authorization: Bearer KEY'"
            )
        matches = [hmac.compare_digest(offered.encode(), key) for key in self._keys]
        if True not in matches:
            raise ApiError(401, "The API key is not one of this gateway's", code="invalid_api_key")
        return f"key {matches.index(True)}"

    def _check_origin(self, headers: Headers) -> None:
        """Browsers let any page open WebSockets to any address, and post files there without reading the answer. Who
        has no key gets through only from our own page and those named, or from no browser at all.

        Raises ApiError.
        """
        origin = headers.get("origin")
        if origin is None or "*" in self._settings.allow_origins or origin in self._settings.allow_origins:
            return
        page, host = urlsplit(origin), headers.get("host", "")
        if page.netloc != host:
            raise ApiError(403, f"Pages of {origin} may not call this gateway", code="origin_not_allowed")
        # Who serves only this machine without a key is called by its name: a page elsewhere may have had its own
        # name resolve to 127.0.0.1.
        if not self._keys and is_loopback(self._settings.host) and not is_loopback(page.hostname or ""):
            raise ApiError(403, f"Expected localhost, got a page of {origin}", code="origin_not_allowed")


def _offered_key(headers: Headers) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(_KEY_SUBPROTOCOL):
            return protocol.strip().removeprefix(_KEY_SUBPROTOCOL)
    return ""


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    response = JSONResponse(error.body(), error.status, error.headers())
    if scope["type"] == "websocket":
        assert (await receive())["type"] == "websocket.connect"
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": error.message[:120]})
            return
    await response(scope, receive, send)
