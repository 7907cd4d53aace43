"""Connections that say nothing, half of something, or more than can be taken."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from moulin.errors import LaunchError
from moulin.gateway.connection_limit import connection_limit
from moulin.gateway.connections import Connections
from moulin.gateway.settings import gateway_settings
from tests.cli.command import MOULIN, eventually
from tests.last_words import last_words

from .running_gateway import running_gateway

NOWHERE = "127.0.0.1:1"
SOON_SEC = 9.0
"""On a busy machine; the usual limit is 10 s."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def _connected(address: str, stack: ExitStack, sent: bytes = b"") -> socket.socket:
    host, _, port = address.partition(":")
    connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
    if sent:
        connection.sendall(sent)
    return connection


def _rest(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    pieces = []
    try:
        while piece := connection.recv(4096):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Half: ",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HT",  # the second request of a connection
    ],
)
def test_half_sent_headers_get_an_answer_and_are_closed(sent: bytes, stack: ExitStack) -> None:
    address = stack.enter_context(running_gateway(NOWHERE, header_timeout_sec=0.5))
    began = time.monotonic()
    answer = _rest(_connected(address, stack, sent))
    assert time.monotonic() - began < SOON_SEC
    assert b"HTTP/1.1 408 Request Timeout" in answer
    assert b'"code": "request_timeout"' in answer


def test_headers_that_drip_are_closed_as_well(stack: ExitStack) -> None:
    address = stack.enter_context(running_gateway(NOWHERE, header_timeout_sec=0.6))
    connection = _connected(address, stack, b"GET /healthz HTTP/1.1\r\n")
    began = time.monotonic()
    with suppress(ConnectionError):
        while time.monotonic() < began + 60:
            connection.sendall(b"A: b\r\n")
            time.sleep(0.1)
    assert time.monotonic() - began < SOON_SEC


def test_sockets_that_have_gone_take_no_place(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    connections = Connections(8, 2, header_sec=60)
    monkeypatch.setattr("tests.gateway.running_gateway.connections_for", lambda _: connections)
    address = stack.enter_context(running_gateway(NOWHERE))
    for _ in range(2):
        with ExitStack() as clients:
            opened = [clients.enter_context(connect(f"ws://{address}/v1/stream", open_timeout=60)) for _ in range(8)]
            assert all("server_unavailable" in str(client.recv(60)) for client in opened)  # there is no Triton
        assert eventually(lambda: connections.count == 0)


def test_a_silent_connection_is_closed(stack: ExitStack) -> None:
    address = stack.enter_context(running_gateway(NOWHERE, header_timeout_sec=0.5))
    began = time.monotonic()
    assert _rest(_connected(address, stack)) == b""
    assert time.monotonic() - began < SOON_SEC


def test_a_request_under_way_is_not_idle(stack: ExitStack) -> None:
    """Its body may take longer than headers may."""
    address = stack.enter_context(running_gateway(NOWHERE, header_timeout_sec=0.5))
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    connection = _connected(address, stack, head + b"Content-Length: 100000\r\n\r\n" + part)
    for _ in range(6):
        connection.sendall(b"-" * 10)
        time.sleep(0.25)
    connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.recv(1)


def test_idle_connections_make_room(stack: ExitStack) -> None:
    address = stack.enter_context(running_gateway(NOWHERE, max_connections=20))
    idle = [_connected(address, stack) for _ in range(100)]
    assert eventually(lambda: _ok(address))
    assert _ok(address)
    assert len(idle) == 100


def test_health_is_answered_while_all_places_are_at_work(stack: ExitStack) -> None:
    address = stack.enter_context(running_gateway(NOWHERE, max_connections=4, allow_anonymous=True))
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    at_work = [_connected(address, stack, head + b"Content-Length: 100000\r\n\r\n") for _ in range(4)]
    assert eventually(lambda: httpx.get(f"http://{address}/v1/models").status_code == 503)
    assert _ok(address)
    refused = httpx.get(f"http://{address}/v1/models")
    assert refused.json()["error"]["code"] == "server_busy"
    assert refused.headers["retry-after"] == "1"
    at_work[0].close()
    assert eventually(lambda: "server_busy" not in httpx.get(f"http://{address}/v1/models").text)


def _ok(address: str) -> bool:
    return httpx.get(f"http://{address}/healthz", timeout=60).status_code == 200


def test_whoever_has_most_idle_connections_loses_the_oldest() -> None:
    async def run() -> None:
        now = [0.0]
        connections = Connections(4, 1, header_sec=10, clock=lambda: now[0])
        for number, host in enumerate(["victim", "many", "many", "many"]):
            now[0] += 1
            assert connections.admit(number, host) is not None
        assert connections.admit(10, "victim") is not None  # takes the place of 1
        assert not connections._held[0].closing
        assert connections._held[1].closing

    asyncio.run(run())


@pytest.mark.parametrize(
    ("open_files", "settings", "limit"),
    [
        (100_000, {}, 4096),
        (100_000, {"max_streams": 5000}, 10512),
        (1000, {}, None),
        (256, {}, None),
        (100_000, {"max_connections": 50}, 50),
    ],
)
def test_limits(open_files: int, settings: dict[str, int], limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moulin.launch.descriptors.raise_limit", lambda: open_files)
    found = connection_limit(gateway_settings(**settings))
    if limit is None:
        assert 16 <= found < open_files / 2
    else:
        assert found == limit


@pytest.mark.parametrize(
    ("open_files", "settings"),
    [(64, {}), (256, {"max_streams": 257}), (256, {"max_requests": 1000}), (1000, {"max_connections": 900})],
)
def test_too_few_open_files(open_files: int, settings: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moulin.launch.descriptors.raise_limit", lambda: open_files)
    with pytest.raises(LaunchError, match=r"Expected at least \d+ open files \(ulimit -n\) for") as caught:
        connection_limit(gateway_settings(**settings))
    assert "ulimit -n 65536" in str(caught.value.hint)
    needed = int(caught.value.message.split()[3])
    monkeypatch.setattr("moulin.launch.descriptors.raise_limit", lambda: needed)
    connection_limit(gateway_settings(**settings))


def _limited(open_files: int, *command: object) -> list[str]:
    return ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *map(str, command)]


@pytest.mark.parametrize("command", ["gateway", "serve"])
def test_a_start_with_64_open_files_says_what_it_needs(command: str) -> None:
    arguments = ["--port=0"] if command == "gateway" else ["--http-port=0", "--grpc-port=0", "--metrics-port=0"]
    if command == "serve":
        arguments.append("--gateway-port=0")
    done = subprocess.run(
        _limited(64, MOULIN, command, *arguments), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    message, hint = last_words(done.stderr)
    assert message.startswith("Expected at least ")
    assert message.endswith(", got 64")
    assert hint.startswith("raise it: `ulimit -n 65536`")


def test_300_idle_connections_with_256_open_files(tmp_path: Path, stack: ExitStack) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file, subprocess.Popen(_limited(256, MOULIN, "gateway", "--port=0"), stderr=file) as gateway:
        stack.callback(gateway.kill)
        assert eventually(lambda: "Listening on" in log.read_text())
        listening = log.read_text().partition("Listening on http://")[2]
        address = listening.split('"')[0].split()[0]
        idle = [_connected(address, stack) for _ in range(300)]
        half = [_connected(address, stack, b"GET / HTTP/1.1\r\nHo") for _ in range(300)]
        began = time.monotonic()
        for _ in range(10):
            assert _ok(address)
        assert time.monotonic() - began < SOON_SEC
        assert len(idle) == len(half) == 300
        assert log.stat().st_size < 10_000
        gateway.kill()


def test_the_limit_is_raised_to_the_hard_one() -> None:
    code = "import resource; from moulin.launch.descriptors import raise_limit; print(raise_limit())"
    done = subprocess.run(
        ["sh", "-c", f"ulimit -Sn 128; exec {sys.executable} -c '{code}'"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == min(1 << 20, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def test_a_tls_handshake_that_never_comes(tmp_path: Path, stack: ExitStack) -> None:
    tls = Path(__file__).parent.parent / "data" / "tls"
    log = tmp_path / "log"
    command = [MOULIN, "gateway", "--port=0", "--header-timeout-sec=1", "--max-connections=8"]
    command += ["--tls-certificate", str(tls / "certificate.pem"), "--tls-key", str(tls / "key.pem")]
    with log.open("wb") as file, subprocess.Popen(command, stderr=file) as gateway, ExitStack() as ending:
        ending.callback(gateway.kill)  # before it is waited for
        assert eventually(lambda: "Listening on" in log.read_text())
        address = log.read_text().partition("Listening on https://")[2].split('"')[0].split()[0]
        silent = [_connected(address, stack) for _ in range(40)]  # more than there are places
        assert eventually(lambda: httpx.get(f"https://{address}/healthz", verify=False).status_code == 200)
        began = time.monotonic()
        assert [_rest(connection) for connection in silent] == [b""] * 40
        assert time.monotonic() - began < SOON_SEC
        gateway.kill()
