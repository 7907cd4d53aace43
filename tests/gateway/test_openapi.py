"""The description of the API, compared with the routes, and read as a page."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from openai.types.audio import transcription_create_params
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient

from moulin.gateway.app import create_app
from moulin.gateway.openapi import SOCKETS
from moulin.gateway.settings import gateway_settings
from moulin.gateway.transcription_request import LISTS


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(gateway_settings(triton=("127.0.0.1:1",), api_keys=("secret",)))) as running:
        yield running


@pytest.fixture(scope="module")
def described(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()  # without a key
    return found


def _is_of_the_page(path: str) -> bool:
    return path == "/" or path.startswith("/page/")


def test_every_route_is_described_and_nothing_else(client: TestClient, described: dict[str, Any]) -> None:
    app: Any = client.app
    routed = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in app.routes
        if isinstance(route, Route) and not _is_of_the_page(route.path)
        for method in (route.methods or set()) - {"HEAD"}
    }
    said = {
        (path, method) for path, methods in described["paths"].items() for method in methods if method != "parameters"
    }
    assert said == routed
    sockets = {route.path for route in app.routes if isinstance(route, WebSocketRoute)} - {"/{path:path}"}
    assert set(described["x-websockets"]) == sockets
    assert sockets <= set(SOCKETS)


def test_every_field_of_openais_client_is_in_the_form(described: dict[str, Any]) -> None:
    body = described["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]
    fields = body["content"]["multipart/form-data"]["schema"]["properties"]
    params = {
        **transcription_create_params.TranscriptionCreateParamsBase.__annotations__,
        **transcription_create_params.TranscriptionCreateParamsNonStreaming.__annotations__,
    }
    assert {f"{name}[]" if name in LISTS else name for name in params} <= set(fields)
    assert all(field.get("description") for field in fields.values())
    assert "others" not in fields


def test_errors_have_the_form_of_the_path(described: dict[str, Any]) -> None:
    for path, form in (("/v1/listen", "DeepgramError"), ("/v1/audio/transcriptions", "Error")):
        answer = described["paths"][path]["post"]["responses"]["default"]["content"]["application/json"]
        assert answer["schema"]["$ref"].endswith(f"/{form}")


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from ([value["$ref"]] if "$ref" in value else [])
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    schemas = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    assert set(references(described)) == schemas


def test_what_is_open_needs_no_key(client: TestClient, described: dict[str, Any]) -> None:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                status = client.request(method, path.replace("{name}", "x")).status_code
                assert (status == 401) == ("security" not in operation), path


class _Read(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src") and value]
        assert tag != "script"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_says_the_same(client: TestClient, described: dict[str, Any]) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = _Read()
    page.feed(answer.text)
    assert page.open == []
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                assert f"{method.upper()} {path}" in page.text
                assert operation["summary"] in page.text
    for field in ("keywords[]", "response_format", "channels", "expires_after"):
        assert field in page.text
    places = [page.text.index(heading) for heading in ("Recordings", "WS /v1/realtime", "WS /v1/listen", "Operation")]
    assert places == sorted(places)
    for link in page.links:
        assert client.get(link).status_code == 200, link
