"""Bodies in very many chunks, over real sockets: others are served meanwhile, and what is no content buys no time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import h11
import httpx
import pytest

from moulin.gateway import upload
from moulin.gateway.event_turns import EVENTS_AT_ONCE, SlicedConnection

from .running_gateway import running_gateway

NOBODY = "127.0.0.1:1"
FIRST = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
BYTE = b"1\r\nx\r\n"


def begun(address: str) -> socket.socket:
    """A connection on which an upload in chunks has begun."""
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(
        f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode()
    )
    connection.sendall(b"%x\r\n%s\r\n" % (len(FIRST), FIRST))
    return connection


@contextmanager
def floods(address: str, count: int, unit: bytes) -> Iterator[None]:
    """Uploads that send `unit` again and again, as fast as it is taken."""
    block, connections = unit * ((1 << 18) // len(unit)), [begun(address) for _ in range(count)]

    def flood(connection: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection.sendall(block)

    threads = [threading.Thread(target=flood, args=(connection,), daemon=True) for connection in connections]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for connection in connections:
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in threads:
            thread.join(30)


def test_a_slice_ends_and_the_next_goes_on() -> None:
    connection = SlicedConnection()
    connection.receive_data(
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + BYTE * 250 + b"0\r\n\r\n"
    )
    counts = []
    for _ in range(4):
        connection.begin_slice()
        counts.append(len(list(iter(connection.next_event, h11.NEED_DATA))))
        assert connection.may_have_more == (counts[-1] == EVENTS_AT_ONCE)
    assert counts == [100, 100, 52, 0]  # the request, 250 bytes and the end


@pytest.mark.parametrize("unit", [BYTE, b"1;" + b"a" * 20 + b"\r\nx\r\n"], ids=["bytes", "extensions"])
def test_others_are_served_beside_a_flood(unit: bytes) -> None:
    with running_gateway(NOBODY) as address, httpx.Client(base_url=f"http://{address}", timeout=30) as client:
        assert client.get("/healthz").status_code == 200
        with floods(address, 16, unit):
            time.sleep(0.5)
            for _ in range(5):
                started = time.monotonic()
                assert client.get("/healthz").status_code == 200
                assert time.monotonic() - started < 10  # without turns a single one took 15 s


@pytest.mark.parametrize(
    "trickle", [b"a" * 50, b"1;" + b"a" * 50 + b"\r\nx\r\n"], ids=["an extension", "bytes with extensions"]
)
def test_extensions_buy_no_time(trickle: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_SLOW_SEC", 1.0)
    with running_gateway(NOBODY, min_upload_bytes_per_sec=1000) as address, begun(address) as connection:
        if trickle.startswith(b"a"):
            connection.sendall(b"1;")
        started = time.monotonic()
        connection.settimeout(0.05)
        answer = b""
        while not answer and time.monotonic() - started < 60:
            connection.sendall(trickle)
            with suppress(TimeoutError):
                answer = connection.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("size", [1, EVENTS_AT_ONCE - 3, EVENTS_AT_ONCE, EVENTS_AT_ONCE + 1, 5000])
def test_a_body_in_bytes_arrives_whole(size: int) -> None:
    """And so does the next request on the same connection, sent at once."""
    with running_gateway(NOBODY) as address, begun(address) as connection:
        after = b"\r\n--x--\r\n"
        connection.sendall(BYTE * size + b"%x\r\n%s\r\n0\r\n\r\n" % (len(after), after))
        connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 400 ")  # the form has no model
        assert answer.count(b"HTTP/1.1 200 ") == 1
