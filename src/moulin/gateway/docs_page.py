"""`GET /openapi.json`, and the same to read at `GET /docs`: plain HTML, without scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from moulin.gateway.openapi import LIVE_SPEECH, TAGS, document

_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


def routes() -> list[BaseRoute]:
    async def description(request: Request) -> Response:
        return JSONResponse(document(request.app.routes))

    async def page(request: Request) -> Response:
        return HTMLResponse("".join(_page(document(request.app.routes))), headers=_HEADERS)

    return [Route("/openapi.json", description), Route("/docs", page)]


def _page(described: dict[str, Any]) -> Iterator[str]:
    info = described["info"]
    title = f"{info['title']} {info['version']}"
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<title>{escape(title)}: what is here</title><link rel="stylesheet" href="/page/docs.css">'
    yield f'<link rel="icon" href="/page/icon.svg"></head><body><main><h1>{escape(title)}</h1>'
    yield "<p>The base URL of OpenAI's clients is this address with <code>/v1</code> behind it. The same for programs: "
    yield '<a href="/openapi.json">openapi.json</a>. To try it by hand: <a href="/">the page</a>.</p>'
    operations = [
        (operation["tags"][0], method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        if method != "parameters"
    ]
    operations.sort(key=lambda found: (TAGS.index(found[0]), found[2]))
    for tag, group in groupby(operations, key=lambda found: found[0]):
        yield f"<h2>{escape(tag)}</h2>"
        for _, method, path, operation in group:
            yield from _operation(method, path, operation)
        if tag == LIVE_SPEECH:
            for path, what in described["x-websockets"].items():
                yield f'<section><h3><span class="method">WS</span> <code>{escape(path)}</code></h3>'
                yield f"<p>{escape(what)}.</p></section>"
    yield "</main></body></html>\n"


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f'<section><h3><span class="method">{escape(method.upper())}</span> <code>{escape(path)}</code></h3>'
    yield f"<p>{escape(operation['summary'])}.</p>"
    if "description" in operation:
        yield f"<p>{_text(operation['description'])}</p>"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Takes <code>{escape(kind)}</code>.</p>"
        if fields := content["schema"].get("properties"):
            yield from _fields(fields, content["schema"].get("required", ()))
    kinds = operation["responses"].get("200", {}).get("content", {})
    if kinds:
        yield "<p>Answers " + ", ".join(f"<code>{escape(kind)}</code>" for kind in kinds) + ".</p>"
    yield "</section>"


def _fields(fields: dict[str, Any], required: Any) -> Iterator[str]:
    yield "<table><thead><tr><th>field</th><th>type</th><th></th></tr></thead><tbody>"
    for name, field in fields.items():
        needed = " (required)" if name in required else ""
        yield f"<tr><td><code>{escape(name)}</code>{needed}</td><td>{escape(_type(field))}</td>"
        yield f"<td>{_text(field.get('description', ''))}</td></tr>"
    yield "</tbody></table>"


def _type(field: dict[str, Any]) -> str:
    """The type of a field in a few words."""
    if "anyOf" in field:
        return " or ".join(_type(one) for one in field["anyOf"] if one.get("type") != "null")
    if "enum" in field or "const" in field:
        return ", ".join(map(str, field.get("enum", [field.get("const")])))
    if "items" in field:
        return f"several of: {_type(field['items'])}"
    kind = str(field.get("type", "any"))
    if "minimum" in field and "maximum" in field:
        return f"{kind}, {field['minimum']} to {field['maximum']}"
    return kind


def _text(words: str) -> str:
    """Escaped, with code between back quotes."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(words))
