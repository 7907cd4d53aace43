"""Hints of 404s; the paths are those that clients ask for with a wrong base URL."""

from __future__ import annotations

import openai
import pytest
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from moulin.gateway.app import create_app
from moulin.gateway.settings import gateway_settings

from .running_gateway import running_gateway


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/audio/transcriptions", "the base URL ends in /v1"),
        ("/models", "the base URL ends in /v1"),
        ("/v1/v1/audio/transcriptions", "/v1 once"),
        ("/v1/audio/transcriptions/audio/transcriptions", "the client adds the rest"),
        ("/api/v1/audio/transcriptions", "right behind the host"),
        ("/openai/deployments/my-whisper/audio/transcriptions", "this is no Azure"),
        ("/v1/chat/completions", "this server transcribes speech"),
        ("/nowhere", "GET /docs lists"),
    ],
)
def test_hints(path: str, hint: str) -> None:
    with TestClient(create_app(gateway_settings(triton=("127.0.0.1:1",)))) as client:
        answer = client.post(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
    assert hint in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/stream"])
def test_a_socket_without_an_upgrade(path: str) -> None:
    """What comes through a proxy that does not pass it on."""
    with TestClient(create_app(gateway_settings(triton=("127.0.0.1:1",)))) as client:
        answer = client.get(path)
    assert answer.status_code == 404
    assert "Upgrade" in answer.json()["error"]["message"]


def test_hints_of_other_methods() -> None:
    with TestClient(create_app(gateway_settings(triton=("127.0.0.1:1",)))) as client:
        openais, deepgrams = client.get("/v1/audio/transcriptions"), client.get("/v1/listen")
    assert openais.status_code == deepgrams.status_code == 405
    assert openais.headers["allow"] == deepgrams.headers["allow"] == "POST"
    assert openais.json()["error"]["message"].endswith("Method Not Allowed (hint: it takes POST)")
    said = deepgrams.json()
    assert said["err_code"] == "METHOD_NOT_ALLOWED"
    assert "it takes POST; for live speech a WebSocket" in said["err_msg"]
    assert said["request_id"] == deepgrams.headers["dg-request-id"] == deepgrams.headers["x-request-id"]


def test_clients_with_other_base_urls() -> None:
    """As OpenAI's own classes build their paths."""
    with running_gateway("127.0.0.1:1") as address:
        for client, hint in (
            (openai.OpenAI(base_url=f"http://{address}", api_key="x"), "the base URL ends in /v1"),
            (openai.OpenAI(base_url=f"http://{address}/api/v1", api_key="x"), "right behind the host"),
            (
                openai.AzureOpenAI(azure_endpoint=f"http://{address}", api_key="x", api_version="2025-01-01"),
                "this is no Azure",
            ),
        ):
            with client, pytest.raises(openai.NotFoundError, match=hint):
                client.audio.transcriptions.create(file=b"x", model="whisper-1")


def test_groqs_paths() -> None:
    """They are those without `/openai`, with all that is asked for there."""
    page = {"origin": "https://elsewhere.example"}
    for settings in ({}, {"api_keys": ("secret",)}):
        with TestClient(create_app(gateway_settings(triton=("127.0.0.1:1",), **settings))) as client:
            for method, path in (("GET", "models"), ("POST", "audio/transcriptions"), ("GET", "nowhere")):
                for headers in ({}, page, {"authorization": "Bearer secret"}):
                    here, groqs = (
                        client.request(method, f"{prefix}/v1/{path}", headers=headers) for prefix in ("", "/openai")
                    )
                    assert (groqs.status_code, groqs.json()) == (here.status_code, here.json())
                    assert groqs.status_code != 404 or path == "nowhere"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/"),
        ("GET", "/openai/v1/models/"),
        ("GET", "/v1/models/transducer/"),
        ("POST", "/v1/audio/transcriptions/"),
        ("POST", "/v1/listen/"),
        ("GET", "/docs//"),
        ("GET", "//"),
    ],
)
def test_a_slash_at_the_end(method: str, path: str) -> None:
    settings = gateway_settings(triton=("127.0.0.1:1",), api_keys=("secret",))
    with TestClient(create_app(settings), follow_redirects=False) as client:
        for headers in ({}, {"authorization": "Bearer secret"}):
            with_it, without = (
                client.request(method, f"http://testserver{at}", headers=headers)
                for at in (path, path.rstrip("/") or "/")
            )
            assert with_it.status_code == without.status_code not in (307, 404)


def test_a_slash_at_the_end_of_a_sockets_path() -> None:
    with running_gateway("127.0.0.1:1") as address, connect(f"ws://{address}/v1/stream/") as socket:
        assert '"error"' in str(socket.recv(10))  # no server of Triton's; at an unknown path the handshake is refused


def test_an_azure_socket() -> None:
    with running_gateway("127.0.0.1:1") as address:
        for path, hint in (("openai/realtime", b"this is no Azure"), ("realtime", b"/v1/realtime")):
            with pytest.raises(InvalidStatus) as caught, connect(f"ws://{address}/{path}"):
                pass
            assert hint in (caught.value.response.body or b"")
