"""Recordings to a gateway that is busy, breaks off or answers nonsense, played by the standard library's server."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from moulin.client.gateway_address import GatewayAddress
from moulin.client.gateway_recordings import GatewayClient
from moulin.errors import ClientError, RequestRefused, ServerBusy, ServerTimeout, ServerUnavailable
from moulin.transcript import PlacedWord, Transcript

WORD = {"word": "ONE", "start": 0.5, "end": 1.0}
ANSWER = {"text": "ONE", "duration": 2.0, "words": [WORD], "logprobs": [{"token": "ONE", "logprob": -0.5}]}

Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def gateway(*answers: Answer, reads: bool = True) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its URL and the requests; the last answer is repeated."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])) if reads else b""
            requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
            status, headers, content = answers[min(len(requests), len(answers)) - 1]
            self.send_response(status)
            for name, value in {"content-length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
        serving.join()


def answer(status: int, fields: object, **headers: str) -> Answer:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(fields).encode()


def refusal(status: int, message: str, **headers: str) -> Answer:
    return answer(status, {"error": {"message": message}}, **headers)


def transcribed(url: str, data: bytes = b"audio", name: str = "a.wav") -> Transcript:
    client = GatewayClient(GatewayAddress(url, "secret"), model="english")
    return client.transcribe(io.BytesIO(data), len(data), name, [("channels", "each")])


def test_a_request_and_its_transcript() -> None:
    placed = {**ANSWER, "words": [{**WORD, "channel": 2}], "warnings": ["it is cut"]}
    with gateway(answer(200, placed, x_moulin_ignored="beam")) as (url, requests):
        found = transcribed(f"{url}/prefix/v1", b"\0audio", 'a "b"\r\nX: y.wav')
    assert found.words == (PlacedWord("ONE", 0.5, 1.0, 0.6065, 2, None),)
    assert found.warnings == ("it is cut", "the gateway made nothing of beam")
    (request,) = requests
    assert request["path"] == "/prefix/v1/audio/transcriptions"
    assert request["headers"]["Authorization"] == "Bearer secret"
    assert b'name="model"\r\n\r\nenglish\r\n' in request["body"]
    assert b'name="channels"\r\n\r\neach\r\n' in request["body"]
    assert b'filename="a _b___X: y.wav"\r\n' in request["body"]
    assert b"\r\n\r\n\0audio\r\n--" in request["body"]


def test_a_busy_gateway_is_asked_again() -> None:
    busy = refusal(429, "256 recordings are being transcribed (hint: try again later)", retry_after="0")
    with gateway(busy, busy, answer(200, ANSWER)) as (url, requests):
        assert transcribed(url).text == "ONE"
        assert len(requests) == 3
        assert requests[2]["body"].count(b"audio\r\n--") == 1
    with gateway(busy) as (url, requests):
        with pytest.raises(ServerBusy, match="256 recordings are being transcribed") as caught:
            transcribed(url)
        assert caught.value.hint == "try again later"
        assert len(requests) == 4


@pytest.mark.parametrize(
    ("refused", "kind", "message"),
    [
        (refusal(400, "Expected audio"), RequestRefused, "Expected audio"),
        (refusal(503, "No Triton"), ServerUnavailable, "No Triton"),
        (refusal(504, "Too long"), ServerTimeout, "Too long"),
        (refusal(500, "Failed"), ClientError, "Failed"),
        (answer(404, ["no"]), RequestRefused, "answered with status 404, and not as a gateway does"),
        (answer(404, {"error": {"message": 3}}), RequestRefused, "answered with status 404"),
        ((301, {"location": "https://elsewhere"}, b""), ClientError, "answered with status 301"),
        (answer(200, {"text": "x"}), ClientError, "Expected a transcript"),
        ((200, {}, b"<html>"), ClientError, "Expected a transcript"),
    ],
)
def test_refusals(refused: Answer, kind: type[ClientError], message: str) -> None:
    with gateway(refused) as (url, _), pytest.raises(kind, match=message) as caught:
        transcribed(url)
    assert type(caught.value) is kind
    assert refused[0] != 301 or caught.value.hint == "it is at https://elsewhere"


def test_a_refusal_before_all_was_sent() -> None:
    """As of a file that is too large."""
    early = refusal(413, "Expected a file of at most 10 bytes")
    errors = (RequestRefused, ServerUnavailable)  # the connection may be reset before the answer is read
    with gateway(early, reads=False) as (url, _), pytest.raises(errors, match=r"at most 10 bytes|No gateway answers"):
        transcribed(url, bytes(50_000_000))


def test_nobody_there() -> None:
    with pytest.raises(ServerUnavailable, match=r"No gateway answers at http://127\.0\.0\.1:1: "):
        transcribed("http://127.0.0.1:1")
