"""Clients that take all they can get, from one address, and another who is served as ever, on the real Triton."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from moulin.launch.server import TritonServer
from tests.cli.command import eventually
from tests.conftest import Recording

from .running_gateway import running_gateway

pytestmark = pytest.mark.triton
PATH = "/v1/audio/transcriptions"
PLACES = 16


@contextmanager
def trickling(address: str, count: int, forwarded_for: str | None = None) -> Iterator[None]:
    """Uploads that have begun and do not go on."""
    host, _, port = address.partition(":")
    also = f"X-Forwarded-For: {forwarded_for}\r\n" if forwarded_for else ""
    head = f"POST {PATH} HTTP/1.1\r\nHost: {address}\r\n{also}Content-Type: multipart/form-data; boundary=x\r\n"
    body = "Content-Length: 100000\r\n\r\n--x\r\n"
    with ExitStack() as connections:
        for _ in range(count):
            connection = connections.enter_context(socket.create_connection((host, int(port))))
            connection.sendall((head + body).encode())
        yield


def transcribed(client: httpx.Client, recording: Recording, **headers: str) -> httpx.Response:
    content = Path(recording.file).read_bytes()
    return client.post(PATH, files={"file": ("a.flac", content)}, data={"model": "whisper-1"}, headers=headers)


def busy(address: str) -> bool:
    exposition = httpx.get(f"http://{address}/metrics").text
    return f"moulin_gateway_uploads {PLACES}.0" in exposition


def test_one_address_cannot_shut_out_another(server: TritonServer, recordings: list[Recording]) -> None:
    with (
        running_gateway(server.grpc_url, max_requests=PLACES) as address,
        httpx.Client(base_url=f"http://{address}", timeout=120) as attacker,
        httpx.Client(
            base_url=f"http://{address}", timeout=120, transport=httpx.HTTPTransport(local_address="127.0.0.2")
        ) as victim,
    ):
        assert transcribed(victim, recordings[0]).json()["text"] == recordings[0].text
        started = time.monotonic()
        transcribed(victim, recordings[0])
        usual = time.monotonic() - started
        with trickling(address, PLACES):
            assert eventually(lambda: busy(address))
            assert transcribed(attacker, recordings[0]).status_code == 429
            for recording in recordings[:4]:
                started = time.monotonic()
                assert transcribed(victim, recording).json()["text"] == recording.text
                assert time.monotonic() - started < usual + 10  # uploads that do not go on are closed after 15 s


def test_users_behind_a_proxy_are_told_apart(server: TritonServer, recordings: list[Recording]) -> None:
    with (
        running_gateway(server.grpc_url, max_requests=PLACES, trusted_proxies=("127.0.0.1",)) as address,
        httpx.Client(base_url=f"http://{address}", timeout=120) as proxy,
        trickling(address, PLACES, forwarded_for="192.0.2.1"),
    ):
        assert eventually(lambda: busy(address))
        refused = transcribed(proxy, recordings[0], **{"x-forwarded-for": "192.0.2.1"})
        assert refused.status_code == 429
        for user in range(20):
            answer = transcribed(proxy, recordings[user % 4], **{"x-forwarded-for": f"198.51.100.{user}"})
            assert answer.json()["text"] == recordings[user % 4].text


def test_live_streams_too(server: TritonServer) -> None:
    with running_gateway(server.grpc_url, max_streams=8) as address, ExitStack() as open_ones:

        def begun(source: str) -> dict[str, object]:
            connection = open_ones.enter_context(connect(f"ws://{address}/v1/stream", source_address=(source, 0)))
            answer: dict[str, object] = json.loads(connection.recv())
            return answer

        assert [begun("127.0.0.1")["type"] for _ in range(8)] == ["ready"] * 8
        assert begun("127.0.0.1")["type"] == "error"
        assert begun("127.0.0.2")["type"] == "ready"
