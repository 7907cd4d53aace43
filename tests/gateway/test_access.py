"""Access to the gateway over HTTP and WebSocket; refusals need no Triton."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import websockets.exceptions
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_typed

from tests.cli.command import eventually

from .running_gateway import running_gateway

NOBODY = "127.0.0.1:1"
KEYS = ("first-key", "second-key")
Start = Callable[..., str]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """A gateway in front of no Triton, one for each set of settings."""
    with ExitStack() as running:
        yield lambda **settings: running.enter_context(running_gateway(NOBODY, **settings))


@pytest.fixture(scope="module")
def closed(start: Start) -> str:
    return start(api_keys=KEYS)


@pytest.fixture(scope="module")
def open_to_all(start: Start) -> str:
    return start()


def connect(url: str, **options: Any) -> ClientConnection:
    """With origins and subprotocols as plain text."""
    opened: ClientConnection = connect_typed(url, **options)
    return opened


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/audio/transcriptions", "/metrics", "/nowhere"])
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"authorization": "Basic Zmlyc3Q6a2V5"}, "missing_api_key"),
        ({"authorization": "Bearer"}, "missing_api_key"),
        (bearer("first"), "invalid_api_key"),
        (bearer("first-key2"), "invalid_api_key"),
        (bearer("FIRST-KEY"), "invalid_api_key"),
        ({"authorization": "Bearer \xff".encode("latin-1")}, "invalid_api_key"),
    ],
)
def test_without_a_key(closed: str, path: str, headers: Any, code: str) -> None:
    method = "POST" if "audio" in path else "GET"
    answer = httpx.request(method, f"http://{closed}{path}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
    assert answer.json()["error"]["type"] == "authentication_error"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("key", KEYS)
def test_with_one_of_the_keys(closed: str, key: str) -> None:
    assert httpx.get(f"http://{closed}/metrics", headers=bearer(key)).status_code == 200
    assert httpx.get(f"http://{closed}/metrics", headers={"authorization": f"bearer {key}"}).status_code == 200
    models = httpx.get(f"http://{closed}/v1/models", headers=bearer(key))
    assert (models.status_code, models.json()["error"]["code"]) == (503, "server_unavailable")
    assert models.headers["retry-after"] == "1"
    assert "No Triton server answers at 127.0.0.1:1" in models.json()["error"]["message"]


def test_health_needs_no_key(closed: str) -> None:
    assert httpx.get(f"http://{closed}/healthz").status_code == 200
    ready = httpx.get(f"http://{closed}/readyz")
    assert (ready.status_code, ready.json()["error"]["type"]) == (503, "server_error")


@pytest.mark.parametrize("path", ["/v1/stream", "/v1/realtime"])
def test_websockets_are_refused_before_they_open(closed: str, path: str) -> None:
    for headers in ({}, bearer("wrong")):
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
            connect(f"ws://{closed}{path}", additional_headers=headers)
        assert caught.value.response.status_code == 401
        assert b"authentication_error" in (caught.value.response.body or b"")


def test_a_browser_sends_its_key_as_a_subprotocol(closed: str) -> None:
    with connect(f"ws://{closed}/v1/stream", subprotocols=["moulin", "openai-insecure-api-key.second-key"]) as opened:
        assert opened.response is not None
        assert opened.response.status_code == 101
        assert opened.subprotocol == "moulin"  # the key does not come back


def test_pages_of_other_origins_may_not_open_websockets(open_to_all: str) -> None:
    """A browser lets any page connect to any address: CORS does not hold for WebSockets."""
    port = open_to_all.rpartition(":")[2]
    for origin in ("https://evil.example", f"http://evil.example:{port}", "null"):
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
            connect(f"ws://{open_to_all}/v1/stream", origin=origin)
        assert caught.value.response.status_code == 403
    # A name that was made to mean this machine (DNS rebinding): origin and host agree, and it is still not ours.
    with pytest.raises(websockets.exceptions.InvalidStatus):
        connect(
            f"ws://{open_to_all}/v1/stream",
            origin=f"http://evil.example:{port}",
            additional_headers={"host": f"evil.example:{port}"},
        )
    with connect(f"ws://{open_to_all}/v1/stream", origin=f"http://{open_to_all}"):
        pass


def test_cors_is_off(open_to_all: str) -> None:
    answer = httpx.get(f"http://{open_to_all}/healthz", headers={"origin": "https://app.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_log_says_which_page_was_refused(open_to_all: str, caplog: pytest.LogCaptureFixture) -> None:
    def lines() -> list[logging.LogRecord]:
        return [one for one in caplog.records if one.getMessage() == "WEBSOCKET /v1/stream 403"]

    with caplog.at_level(logging.INFO, logger="moulin.gateway"):
        with pytest.raises(websockets.exceptions.InvalidStatus):
            connect(f"ws://{open_to_all}/v1/stream", origin="https://elsewhere.example")
        assert eventually(lambda: bool(lines()))
    about = vars(lines()[0])
    assert (about["error"], about["origin"]) == ("origin_not_allowed", "https://elsewhere.example")


def test_pages_of_other_origins_may_not_post_either(open_to_all: str) -> None:
    """CORS keeps them from reading the answer, not from having us work."""
    url = f"http://{open_to_all}/v1/audio/transcriptions"
    refused = httpx.post(url, files={"file": b"x"}, headers={"origin": "https://evil.example"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_not_allowed")
    own = httpx.post(url, files={"file": b"x"}, headers={"origin": f"http://{open_to_all}"})
    assert (own.status_code, own.json()["error"]["param"]) == (400, "model")


def test_named_origins(start: Start) -> None:
    address = start(allow_origins=("https://app.example",), api_keys=KEYS)
    ask = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    preflight = httpx.options(f"http://{address}/v1/audio/transcriptions", headers=ask)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    refused = httpx.options(f"http://{address}/v1/audio/transcriptions", headers={**ask, "origin": "https://other"})
    assert refused.status_code == 400
    # A page that may call can also read why it was refused.
    answer = httpx.get(f"http://{address}/v1/models", headers={"origin": "https://app.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, "https://app.example")
    with connect(
        f"ws://{address}/v1/stream",
        origin="https://app.example",
        additional_headers=bearer(KEYS[0]),
    ):
        pass


def test_a_rate_for_each_key(start: Start) -> None:
    address = start(api_keys=KEYS, max_requests_per_minute=2)
    statuses = [httpx.get(f"http://{address}/v1/models", headers=bearer(KEYS[0])).status_code for _ in range(3)]
    assert statuses == [503, 503, 429]
    assert httpx.get(f"http://{address}/v1/models", headers=bearer(KEYS[1])).status_code == 503
    assert httpx.get(f"http://{address}/metrics", headers=bearer(KEYS[0])).status_code == 200
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        connect(f"ws://{address}/v1/stream", additional_headers=bearer(KEYS[0]))
    assert caught.value.response.status_code == 429
    assert "retry-after" in caught.value.response.headers


def test_paths_that_are_not_there(open_to_all: str) -> None:
    answer = httpx.get(f"http://{open_to_all}/v1/chat/completions")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        connect(f"ws://{open_to_all}/v1/nowhere")
    assert caught.value.response.status_code in (403, 404)


def test_keys_have_names_in_metrics_and_log(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    gateway = start(api_keys=("app secret", "monitor watching"), metrics_keys=("monitor",))
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            httpx.get(f"http://{gateway}/v1/models", headers=bearer("secret"))

        def names() -> list[Any]:
            return [vars(record).get("key") for record in caplog.records if record.name.startswith("moulin")]

        assert eventually(lambda: names() == ["app"] * 3)  # the line comes behind the answer
    refused = httpx.get(f"http://{gateway}/metrics", headers=bearer("secret"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "key_not_allowed")
    metrics = httpx.get(f"http://{gateway}/metrics", headers=bearer("watching")).text
    assert 'moulin_gateway_key_requests_total{key="app"} 4.0' in metrics
    assert "secret" not in metrics


def test_a_request_without_a_key_counts_for_none(open_to_all: str) -> None:
    httpx.get(f"http://{open_to_all}/v1/models")
    assert "moulin_gateway_key_requests_total{" not in httpx.get(f"http://{open_to_all}/metrics").text
