"""Access control: who may call, from which web pages, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from moulin.gateway.api_error import ApiError
from moulin.gateway.api_keys import KEY_NAME, ApiKeys
from moulin.gateway.client_secrets import ClientSecret, opened
from moulin.gateway.error_forms import answer
from moulin.gateway.limits import Limits
from moulin.gateway.named_keys import SECRET_PREFIX
from moulin.gateway.settings import GatewaySettings
from moulin.launch.ports import is_loopback
from moulin.quoting import cut

_KEY_SUBPROTOCOL = "openai-insecure-api-key."
"""OpenAI's subprotocol for sending a key from a browser, which cannot set headers of a WebSocket."""

_SCHEMES = ("bearer", "token")

_SECRETS_PATH = "/v1/realtime"
"""The only path that a client secret opens."""

MOST_HEADERS_BYTES = 64 << 10
"""The limit on all headers of a request: that of h11, which checks it only where they come in several pieces."""

# Health checks have no key. The page asks its user for one.
_OPEN_PATHS = ("/", "/healthz", "/readyz", "/favicon.ico", "/docs", "/openapi.json")
_OPEN_FOLDER = "/page/"


class Access:
    """ASGI middleware before every route, for HTTP and WebSockets, that lets only permitted requests through.

    A WebSocket is refused before it is accepted, with the same status and body as HTTP.
    """

    def __init__(self, app: ASGIApp, settings: GatewaySettings, limits: Limits) -> None:
        self._app, self._settings, self._limits = app, settings, limits
        self._keys = ApiKeys(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        try:
            self._check(connection)
        except ApiError as error:
            if error.code == "origin_not_allowed":  # a browser does not show its page why a WebSocket was refused
                connection.state.log = {"origin": cut(connection.headers["origin"])}
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
            key = secret.key if secret else self._keys.found(_offered_key(connection.headers))
            connection.state.api_key, caller = key.key, key.name
            KEY_NAME.set(caller)
            self._check_metrics(path, caller)
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
            return opened(offered, self._keys.current()) if offered.startswith(SECRET_PREFIX) else None
        except ApiError:
            if self._keys:
                raise
            return None

    def _check_metrics(self, path: str, key: str) -> None:
        """Raises ApiError 403."""
        if path == "/metrics" and self._settings.metrics_keys and key not in self._settings.metrics_keys:
            raise ApiError(403, "This API key may not read the metrics", code="key_not_allowed")

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
    """The key in `Bearer KEY`, or in Deepgram's `Token KEY`; empty where there is none."""
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() in _SCHEMES else ""


def key_subprotocol(offered: Sequence[str]) -> str | None:
    """The subprotocol, `token` or `bearer`, behind which a browser sends a key to Deepgram; None where it does not."""
    return offered[0] if len(offered) > 1 and offered[0].lower() in _SCHEMES else None


def _offered_key(headers: Headers) -> str:
    if key := bearer_key(headers.get("authorization", "")):
        return key
    protocols = [protocol.strip() for protocol in headers.get("sec-websocket-protocol", "").split(",")]
    for protocol in protocols:
        if protocol.startswith(_KEY_SUBPROTOCOL):
            return protocol.removeprefix(_KEY_SUBPROTOCOL)
    return protocols[1] if key_subprotocol(protocols) else ""
