"""Access control: API keys, origins of web pages, and request rates."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from moulin.gateway.api_error import ApiError, answer
from moulin.gateway.client_secrets import ClientSecret, ClientSecrets
from moulin.gateway.limits import Limits
from moulin.gateway.settings import SECRET_PREFIX, GatewaySettings, is_loopback
from moulin.quoting import cut

_KEY_SUBPROTOCOL = "openai-insecure-api-key."
"""OpenAI's subprotocol for sending a key from a browser, which cannot set headers of a WebSocket."""

_SECRETS_PATH = "/v1/realtime"
"""The only path that a client secret opens."""

MOST_HEADERS_BYTES = 64 << 10
"""The limit on all headers of a request: that of h11, which checks it only where they come in several pieces."""

# Health checks have no key. The page asks its user for one.
_OPEN_PATHS = ("/", "/healthz", "/readyz", "/favicon.ico", "/docs", "/openapi.json")
_OPEN_FOLDER = "/page/"


class ApiKeys:
    """The gateway's keys; false where it asks for none."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._keys = [key.encode() for key in settings.api_keys]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def number(self, offered: str) -> str:
        """The name of the offered key: that of its number. Raises ApiError."""
        return caller_of(self.index(offered))

    def index(self, offered: str) -> int:
        """The number of the offered key. All keys are compared, so that timing reveals nothing. Raises ApiError."""
        if not offered:
            raise ApiError(
                401, "Expected an API key, got none", code="missing_api_key", hint="send 'Authorization: Bearer KEY'"
            )
        matches = [hmac.compare_digest(offered.encode(), key) for key in self._keys]
        if True not in matches:
            raise ApiError(401, "The API key is not one of this gateway's", code="invalid_api_key")
        return matches.index(True)


def caller_of(key_number: int) -> str:
    """The name of an API key as a caller, which says nothing about the key."""
    return f"key {key_number}"


class Access:
    """ASGI middleware before every route, for HTTP and WebSockets, that lets only permitted requests through.

    A WebSocket is refused before it is accepted, with the same status and body as HTTP.
    """

    def __init__(self, app: ASGIApp, settings: GatewaySettings, limits: Limits) -> None:
        self._app, self._settings, self._limits = app, settings, limits
        self._keys = ApiKeys(settings)
        self._secrets = ClientSecrets(settings.api_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._check(HTTPConnection(scope))
        except ApiError as error:
            await answer(error, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, connection: HTTPConnection) -> None:
        if sum(len(name) + len(value) for name, value in connection.scope["headers"]) > MOST_HEADERS_BYTES:
            raise headers_too_large()
        if "content-length" in connection.headers and "transfer-encoding" in connection.headers:
            # A proxy in front may believe the other one, and take part of the body for a request (RFC 9112, 6.3).
            raise ApiError(400, "Expected Content-Length or Transfer-Encoding, got both", code="invalid_http")
        path = connection.scope["path"]  # connection.url would parse the Host header, which may be anything
        secret = self._client_secret(connection)
        if (not self._keys and path.startswith("/v1/")) or (connection.scope["type"] == "websocket" and secret is None):
            self._check_origin(connection.headers)
        if connection.scope["type"] == "http" and self._is_open(path, connection.scope["method"]):
            return
        caller = connection.client.host if connection.client else ""
        if self._keys:
            number = secret.key_number if secret else self._keys.index(_offered_key(connection.headers))
            connection.state.key_number, caller = number, caller_of(number)
        connection.state.caller = caller
        connection.state.client_secret = secret
        if path.startswith("/v1/"):
            self._limits.count(caller)

    def _client_secret(self, connection: HTTPConnection) -> ClientSecret | None:
        """The secret that opens a live session, whatever page it is from: a page that has one may call. Raises ApiError
        for one that is not valid; where there are no keys, that is none."""
        if connection.scope["type"] != "websocket" or connection.scope["path"] != _SECRETS_PATH:
            return None
        offered = _offered_key(connection.headers)
        try:
            return self._secrets.open(offered) if offered.startswith(SECRET_PREFIX) else None
        except ApiError:
            if self._keys:
                raise
            return None

    def _is_open(self, path: str, method: str) -> bool:
        """Whether the path needs no key."""
        return path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER) or method == "OPTIONS"

    def _check_origin(self, headers: Headers) -> None:
        """Refuse other web pages: browsers let any page open WebSockets to any address, and post files there without
        reading the answer. Without keys only the gateway's own page, the configured origins and clients other than
        browsers get through.

        Raises ApiError.
        """
        origin = headers.get("origin")
        if origin is None or "*" in self._settings.allow_origins or origin in self._settings.allow_origins:
            return
        try:
            page = urlsplit(origin)
        except ValueError:  # no browser sends such an origin
            page = urlsplit("")
        if not page.netloc or page.netloc != headers.get("host", ""):
            raise ApiError(403, f"Pages of {cut(origin)} may not call this gateway", code="origin_not_allowed")
        # A gateway for this machine only, without keys, must be called as localhost: a page's own host name may have
        # been made to resolve to 127.0.0.1 (DNS rebinding).
        if not self._keys and is_loopback(self._settings.host) and not is_loopback(page.hostname or ""):
            raise ApiError(403, f"Expected localhost, got a page of {cut(origin)}", code="origin_not_allowed")


def headers_too_large() -> ApiError:
    return ApiError(
        431, f"Expected at most {MOST_HEADERS_BYTES:,} bytes of headers, got more", code="headers_too_large"
    )


def bearer_key(authorization: str) -> str:
    """The key in `Bearer KEY`; empty where there is none."""
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _offered_key(headers: Headers) -> str:
    if key := bearer_key(headers.get("authorization", "")):
        return key
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(_KEY_SUBPROTOCOL):
            return protocol.strip().removeprefix(_KEY_SUBPROTOCOL)
    return ""
