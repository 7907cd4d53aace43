"""The web page at `/`: files in this folder, served unchanged. No build step, no third-party content."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from moulin.demo.about import SAMPLE

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "flac": "audio/flac",
}

# Scripts and styles come from this server only, and none are inline; blob: allows playing a recording from the
# browser's memory.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Revalidated at every request, and sent again only if changed.
    "cache-control": "no-cache",
}

_START = "index.html"
_SAMPLE_NAME = "sample.flac"


def page_routes(*, history: bool = True) -> list[BaseRoute]:
    """Routes of the page at `/`, of its files below `/page/`, of a sample to try the bundled models on, and of
    `/page/settings.json`: `history`, whether it may keep transcripts in the browser."""
    contents = {
        file.name: file.read_bytes() for file in files(__name__).iterdir() if file.name.rpartition(".")[2] in _TYPES
    }
    contents[_SAMPLE_NAME] = SAMPLE.read_bytes()

    async def settings(_request: Request) -> Response:
        return JSONResponse({"history": history}, headers=_HEADERS)

    return [
        Route("/page/settings.json", settings),
        *(
            Route("/" if name == _START else f"/page/{name}", _answer(name, content))
            for name, content in sorted(contents.items())
        ),
    ]


def _answer(name: str, content: bytes) -> Callable[[Request], Awaitable[Response]]:
    kind = _TYPES[name.rpartition(".")[2]]
    headers = {**_HEADERS, "etag": f'"{hashlib.sha256(content).hexdigest()[:24]}"'}

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    return answer
