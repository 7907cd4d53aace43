"""Paths that clients ask for beside those of the routes: what they mean, or the hint of a 404."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

_OURS = r"(?:audio/transcriptions|audio/translations|models|realtime|stream|listen)(?:/.*)?"

_NO_AZURE = (
    "this is no Azure: use OpenAI's client with a base URL that ends in /v1; --model-alias knows the deployment's name"
)
_SOCKET = "a WebSocket is opened here, and a proxy in front has to pass on its Upgrade header"
_HINTS = (
    (r"/v1/(?:realtime|stream)", _SOCKET),
    (rf"/{_OURS}", "the base URL ends in /v1"),
    (rf"(?:/v1){{2,}}/{_OURS}", "the base URL has /v1 once, and the client adds the rest"),
    (
        rf"/v1/(?:{_OURS}/)+{_OURS}",
        "the base URL ends in /v1, and the client adds the rest",
    ),
    (
        rf"/openai/deployments/[^/]+/{_OURS}|/openai/realtime|/openai/models.*",
        _NO_AZURE,
    ),
    (rf"/.+/v1/{_OURS}", "the base URL ends in /v1 right behind the host and port"),
    (
        r"/(?:v1/)?(?:chat/completions|completions|responses|embeddings|audio/speech|images/.*|files.*|batches.*)",
        "this server transcribes speech: /v1/audio/transcriptions and /v1/realtime",
    ),
)


_GROQS = "/openai/v1/"


class OtherPaths:
    """ASGI middleware: paths that mean another one. Groq's client, whatever its base URL, puts `/openai` in front of
    `/v1/`; people put a `/` at the end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            path = meant_path(scope["path"], is_socket=scope["type"] == "websocket")
            if path != scope["path"]:
                scope = {**scope, "path": path, "raw_path": path.encode()}
        await self._app(scope, receive, send)


def meant_path(path: str, *, is_socket: bool = False) -> str:
    """The path of a route that `path` means."""
    if not is_socket and path.startswith(_GROQS):
        path = path.removeprefix("/openai")
    return path.rstrip("/") or "/"


def path_hint(path: str) -> str:
    """A sentence about `path`, at which nothing is."""
    for pattern, hint in _HINTS:
        if re.fullmatch(pattern, path):
            return hint
    return "GET /docs lists what is here"


def method_hint(path: str, allowed: str) -> str:
    """A sentence about `path`, which takes the methods `allowed` alone."""
    methods = [method for method in allowed.split(", ") if method != "HEAD"]
    hint = f"it takes {' and '.join(methods)}"
    return f"{hint}; for live speech {_SOCKET}" if path == "/v1/listen" else hint


def socket_hint(path: str) -> str:
    """The same about a WebSocket."""
    if re.fullmatch(r"/openai/.*", path):
        return _NO_AZURE
    return "live speech is at /v1/realtime, /v1/stream and /v1/listen"
