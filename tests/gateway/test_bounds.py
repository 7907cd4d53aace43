"""What a client chooses is bounded in labels, logs and answers, over real sockets and with no Triton behind."""

from __future__ import annotations

import asyncio
import json
import logging
import platform
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import moulin
from moulin.gateway.api_error import ApiError, close_reason
from moulin.gateway.http_protocol import MOST_HEADERS, MOST_LINE_BYTES
from moulin.gateway.live_session import LiveSession
from moulin.gateway.live_steps import Event
from moulin.gateway.realtime_config import RealtimeConfig
from moulin.gateway.realtime_session import RealtimeSession
from moulin.log_form import JsonFormatter, TextFormatter

from .running_gateway import running_gateway

LONG = "x" * 10_000_000
NOBODY = "127.0.0.1:1"
LABELS = {
    "method": {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET", "other"},
    "status": {str(status) for status in range(600)},
    "kind": {"recording", "stream"},
    "state": {"listed", "departed"},
    "reason": {"not_kept", "not_taken"},
    "outcome": {"answered", "empty", "failed"},
    "backend": {NOBODY},
    "version": {moulin.__version__},
    "python": {platform.python_version()},
    "engines": {""},
}
"""Every label of every metric, with its values; `route` and `le` are in the code."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    with running_gateway(NOBODY) as address:
        yield address


@pytest.fixture(scope="module")
def with_keys() -> Iterator[str]:
    with running_gateway(NOBODY, api_keys=("secret",)) as address:
        yield address


def raw(gateway: str, head: bytes, *, body: bytes = b"") -> tuple[int, bytes, bytes]:
    """Status, headers and body of the answer to a request; the gateway closes the connection."""
    host, port = gateway.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head + body)
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
            if b"\r\n\r\n" in answer and b"101 Switching" in answer:
                break
    headers, _, content = answer.partition(b"\r\n\r\n")
    return int(headers.split(b" ")[1]), headers, content


def request(method: str = "GET", path: str = "/v1/models", *, host: str = "localhost", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def handshake(path: str = "/v1/stream", *, host: str = "localhost", more: tuple[str, ...] = ()) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *more,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def error_in(body: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(body)
    assert fields.keys() == {"error"}
    assert fields["error"].keys() == {"message", "type", "param", "code"}
    assert len(body) < 5000
    return fields["error"]  # type: ignore[no-any-return]


# -------------------------------------------------------------------------------------------------------------- labels


def test_metrics_have_labels_of_closed_sets(gateway: str) -> None:
    for number in range(100):
        raw(gateway, request(f"METHOD{number}", f"/path{number}"))
        raw(gateway, request("POST", f"/v1/models/{number}", x_request_id=f"id{number}"))
        raw(gateway, handshake(f"/socket{number}"))
        raw(gateway, request("GET", f"/v1/models/model{number}?key={number}", authorization=f"Bearer {number}"))
        raw(gateway, request("DELETE", "/v1/audio/transcriptions", content_type=f"a/{number}"))
    status, _, body = raw(gateway, request(path="/metrics"))
    assert status == 200
    assert len(body) < 50_000
    routes = {"/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/{name:path}", "/v1/audio/transcriptions",
              "/v1/audio/translations", "/v1/realtime", "/v1/stream", "/", "/page/{name}", "/favicon.ico",
              "/{path:path}", "other"}  # fmt: skip
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label == "route":
                    assert value in routes | {value for value in routes if value.startswith("/page")}, value
                elif label != "le":
                    assert value in LABELS[label], (family.name, label, value)


# ---------------------------------------------------------------------------------------------------------- handshakes


@pytest.mark.parametrize("path", ["/v1/stream", "/v1/realtime", "/nowhere"])
@pytest.mark.parametrize(
    "more",
    [
        (f"X-Long: {'x' * 8200}",),
        (f"X-Long: {'x' * 60_000}",),
        (f"X-Long: {'x' * 70_000}",),
        (f"{'x' * 9000}: y",),
        (f"Sec-WebSocket-Protocol: {'x' * 9000}",),
        tuple(f"X-{n}: y" for n in range(200)),
        tuple(f"X-{n}: {'y' * 1000}" for n in range(100)),
    ],
    ids=["8200", "60000", "70000", "name", "subprotocol", "many", "much"],
)
def test_a_handshake_with_too_much_in_it(gateway: str, path: str, more: tuple[str, ...]) -> None:
    status, _, body = raw(gateway, handshake(path, more=more))
    assert status == 431
    assert error_in(body)["code"] == "headers_too_large"


def test_a_handshake_with_too_long_an_address(gateway: str) -> None:
    status, _, body = raw(gateway, handshake(f"/v1/stream?x={'x' * 9000}"))
    assert status == 431
    error_in(body)


def test_a_handshake_just_small_enough(gateway: str) -> None:
    line = f"X-Long: {'x' * (MOST_LINE_BYTES - len('X-Long: '))}"
    many = tuple(f"X-{n}: y" for n in range(MOST_HEADERS - 8))
    assert raw(gateway, handshake(more=(line,)))[0] == 101
    assert raw(gateway, handshake(more=many))[0] == 101


@pytest.mark.parametrize(
    "more",
    [
        'Sec-WebSocket-Extensions: ;;;="',
        "Sec-WebSocket-Protocol: \x80, ,,a b",
        "X: \x80\xff",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Sec-WebSocket-Version: 8",
        "Sec-WebSocket-Key: short",
    ],
)
def test_strange_handshakes_are_answered(gateway: str, more: str) -> None:
    status, _, _ = raw(gateway, handshake(more=(more,)))
    assert status == 101 or 400 <= status < 500


def test_a_websocket_at_an_unknown_path(gateway: str) -> None:
    async def script() -> None:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"ws://{gateway}/v1/nowhere"):
                pass
        assert caught.value.response.status_code == 404
        assert error_in(bytes(caught.value.response.body or b""))["code"] == "not_found"

    asyncio.run(script())


# --------------------------------------------------------------------------------------------------- malformed headers

STRANGE = [
    "http://[::1", "http://[", "//", "http://", "null", "", "http://a b", "http://x:99999999", "http://\x80", "[::1",
    "http://localhost\x80", "a" * 5000, "http://[v1.x]", "http://[::1]extra", "//[", "http://user@[::1",
]  # fmt: skip


@pytest.mark.parametrize("origin", STRANGE)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/audio/transcriptions", "/v1/nowhere", "/v1/stream"])
def test_malformed_origins(gateway: str, with_keys: str, origin: str, path: str) -> None:
    head = handshake(path, more=(f"Origin: {origin}",)) if path == "/v1/stream" else request(path=path, origin=origin)
    status, _, body = raw(gateway, head)
    assert status == 403
    assert error_in(body)["code"] == "origin_not_allowed"
    assert 400 <= raw(with_keys, head)[0] < 500


def test_two_lengths_of_one_body(gateway: str) -> None:
    lines = ["Transfer-Encoding: chunked", "Content-Length: 4"]
    head = "\r\n".join(["POST /v1/models HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()
    status, headers, body = raw(gateway, head, body=b"0\r\n\r\n")  # until the gateway closes
    assert status == 400
    assert b"connection: close" in headers.lower()
    assert error_in(body)["code"] == "invalid_http"


@pytest.mark.parametrize("host", [*STRANGE, "localhost:port", "\xff"])
@pytest.mark.parametrize("path", ["/v1/nowhere", "/v1/models/x", "/healthz", "/nowhere", "/page/nothing"])
def test_malformed_hosts(gateway: str, host: str, path: str) -> None:
    for head in (request(path=path, host=host), handshake(path, host=host)):
        status, _, body = raw(gateway, head)
        assert status in (200, 400, 403, 404, 503), body
        if status >= 400:
            error_in(body)


@pytest.mark.parametrize(
    "kind",
    ["", "x", "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\xff",
     f"multipart/form-data; boundary={'x' * 7000}", "multipart/form-data; charset=nonsense; boundary=x",
     'multipart/form-data; boundary="', "multipart/form-data;;;=;", "application/json", "x" * 7000],
)  # fmt: skip
@pytest.mark.parametrize(
    "content", [b"", b"--x\r\n", b"\0" * 100, b"--x\r\nContent-Disposition: form-data\r\n\r\n--x--"]
)
def test_malformed_content_types(gateway: str, kind: str, content: bytes) -> None:
    head = request("POST", "/v1/audio/transcriptions", content_type=kind, content_length=str(len(content)))
    status, _, body = raw(gateway, head, body=content)
    assert status in (400, 415), body
    error_in(body)


def test_a_form_in_a_charset_that_gives_half_characters(gateway: str) -> None:
    """Any of Python's encodings may be named, and this one decodes to what no UTF-8 can hold."""
    content = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="\\ud800.wav"\r\n\r\nRIFF\r\n'
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n\\ud800\r\n--x--\r\n'
    )
    kind = "multipart/form-data; charset=unicode_escape; boundary=x"
    head = request("POST", "/v1/audio/transcriptions", content_type=kind, content_length=str(len(content)))
    status, _, body = raw(gateway, head, body=content)
    assert status == 400
    assert "a form in UTF-8" in error_in(body)["message"]


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic x", "\xff", "Bearer \xff", "x" * 7000, ",", "Bearer a b"]
)
def test_malformed_authorizations(with_keys: str, value: str) -> None:
    for head in (request(authorization=value), handshake(more=(f"Authorization: {value}",))):
        status, _, body = raw(with_keys, head)
        assert status == 401
        error_in(body)


@pytest.mark.parametrize("head", [b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n"])
def test_what_is_no_http(gateway: str, head: bytes) -> None:
    status, _, body = raw(gateway, head)
    assert status == 400
    assert error_in(body)["code"] == "invalid_http"


# -------------------------------------------------------------------------------------------------- one body for errors


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (request(path="/nowhere"), 404),
        (request(path="/" + "x" * 20_000), 404),
        (request(path="/%ed%a0%80%0a"), 404),
        (request("DELETE"), 405),
        (request("X" * 5000), 405),
        (request(path="/v1/models/x"), 503),
        (request("POST", "/v1/audio/translations"), 404),
        (request("POST", "/v1/audio/transcriptions"), 415),
        (request("POST", "/v1/audio/transcriptions", content_type="multipart/form-data; boundary=x",
                 content_length="99999999999"), 413),
        (request(x=f"{'x' * 70_000}"), 431),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_every_error_has_the_same_form(gateway: str, head: bytes, wanted: int) -> None:
    status, headers, body = raw(gateway, head)
    assert status == wanted
    assert b"application/json" in headers
    error_in(body)


def test_errors_are_short_whatever_they_are_about() -> None:
    error = ApiError(400, LONG, hint=LONG, param=LONG)
    assert len(json.dumps(error.body())) < 10_000
    assert len(close_reason("ü" * 1000).encode()) <= 123
    assert close_reason("\ud800") == "?"
    json.dumps(ApiError(400, "\ud800", param="\ud800").body(), ensure_ascii=False).encode()


# -------------------------------------------------------------------------------------------------------- live messages

X = "x" * 1_000_000


def update(session: str) -> str:
    return '{"type": "session.update", "session": ' + session + "}"


def heard_with(field: str) -> str:
    return update('{"audio": {"input": {"transcription": {' + field + "}}}}")


MESSAGES = [
    "\x00",
    "",
    "[" * 200_000,
    '{"a":' * 100 + "1" + "}" * 100,
    f'{{"{X}": 1}}',
    '{"\\udfff": 1}',
    '{"type": "\\ud800"}',
    f'{{"type": "{X}"}}',
    '{"type": ' + "1" * 1_000_000 + "}",
    f'{{"type": {{"a": ["{X[:1000]}"]}}}}',
    '{"event_id": "\\ud800", "type": "x"}',
    f'{{"event_id": "{X}"}}',
    '{"type": "ping", "type": "end"}',
    '{"type": "ping", "id": "\\ud800"}',
    '{"type": "ping", "id": NaN}',
    '{"type": "ping", "id": 1e999}',
    f'{{"type": "ping", "id": "{X[:60_000]}"}}',
    '{"type": "options", "options": "\\ud800"}',
    f'{{"type": "options", "options": {{"{X[:60_000]}": 1}}}}',
    '{"type": "options", "options": {"beam": ' + "9" * 900 + "}}",
    update(f'{{"type": "{X}"}}'),
    update(f'{{"audio": {{"input": {{"turn_detection": {{"type": "{X}"}}}}}}}}'),
    heard_with(f'"language": "{X[:65]}"'),
    heard_with(f'"prompt": "{X[:20_000]}"'),
    heard_with(f'"model": "{X}"'),
    '{"type": "input_audio_buffer.append", "audio": "' + "!" * 1000 + '"}',
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message[:40])
def test_live_messages_are_answered_with_short_errors(message: str) -> None:
    for session in (LiveSession("m"), RealtimeSession(RealtimeConfig("m"))):
        events = list(session.receive(message))
        assert len(events) == 1
        assert isinstance(events[0], Event)
        assert events[0].fields["type"] == "error"
        assert len(json.dumps(events[0].fields, ensure_ascii=False).encode()) < 8000


def test_unknown_settings_of_a_live_session_are_named_shortly() -> None:
    (named,) = RealtimeSession(RealtimeConfig("m")).receive(update(f'{{"{X}": 1}}'))
    assert isinstance(named, Event)
    assert named.fields["type"] == "session.updated"
    assert len(json.dumps(named.fields, ensure_ascii=False).encode()) < 8000


# ------------------------------------------------------------------------------------------------------------ log lines


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
@pytest.mark.parametrize("text", [LONG, "\ud800", "a\nb\r\x1b[2Jc"])
def test_log_records_are_short_and_of_one_line(formatter: logging.Formatter, text: str) -> None:
    record = logging.makeLogRecord({"msg": "%s", "args": (text,), "levelname": "INFO", "client": text, "model": text})
    line = formatter.format(record)
    assert len(line) < 25_000
    assert "\n" not in line
    line.encode()
