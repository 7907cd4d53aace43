"""OpenAI's transcription request, to a server that reads it with the standard library's parser of forms."""

from __future__ import annotations

import asyncio
import email
import email.policy
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import soundfile

from moulin.client.gateway_address import GatewayAddress
from moulin.evaluate.request_load import run_once
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets.openai_rest import RestConnection, rest_at
from moulin.evaluate.targets.target import ServerSettings
from moulin.models.engine_choice import EngineChoice


def clip(name: str) -> Clip:
    samples = np.sin(np.arange(1600) / 10).astype(np.float32) / 2
    return Clip("ONE", (samples,), samples[:0], (1,), (True,), name, whole=True)


@dataclass
class Service:
    """Answers each request with what `answer(number)` says: whole HTTP responses, so that a test can say anything."""

    answer: Callable[[int], bytes]
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    num_connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(length))
                reply = self.answer(len(self.bodies) - 1)
                writer.write(reply)
                await writer.drain()
                if b"Connection: close" in reply or not reply:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def json_reply(status: str, fields: object, extra: str = "") -> bytes:
    body = json.dumps(fields).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


def chunked_reply(fields: object) -> bytes:
    body = json.dumps(fields).encode()
    pieces = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in (body[:5], body[5:]))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"


def outcomes(service: Service, count: int, *, workers: int = 1, api_key: str = "") -> list[str | None]:
    """The text or the failure of `count` recordings."""

    async def run() -> list[str | None]:
        server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        clips = [clip(str(number)) for number in range(count)]
        settings = ServerSettings(EngineChoice(threads=1), api_key=api_key)
        connection = rest_at(f"http://{host}:{port}#digits", settings).connect(clips, 0)
        assert isinstance(connection, RestConnection)
        async with server:
            records = await asyncio.wait_for(run_once(connection, clips, workers), 120)
            await connection.close()
        assert connection.num_requests == count
        return [record.text or record.failure for record in records]

    return asyncio.run(run())


def test_the_request_is_the_form_that_openai_defines() -> None:
    service = Service(lambda _: json_reply("200 OK", {"text": "ONE"}))
    assert outcomes(service, 1, api_key="secret") == ["ONE"]
    assert service.heads[0].startswith("POST /v1/audio/transcriptions HTTP/1.1\r\n")
    assert "authorization: bearer secret\r\n" in service.heads[0].lower()
    head = service.heads[0].partition("\r\n")[2].encode()
    form = email.message_from_bytes(head + service.bodies[0], policy=email.policy.default)
    parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
    assert {name: part.get_content().strip() for name, part in parts.items() if name != "file"} == {
        "model": "digits",
        "response_format": "json",
    }
    wav = parts["file"].get_payload(decode=True)
    assert isinstance(wav, bytes)
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    assert rate == 16000
    np.testing.assert_allclose(samples, clip("x").chunks[0], atol=1e-4)


def test_a_connection_is_kept_and_chunked_answers_are_read() -> None:
    service = Service(lambda number: chunked_reply({"text": f"N{number}"}))
    assert outcomes(service, 3) == ["N0", "N1", "N2"]
    assert service.num_connections == 1


def test_as_many_connections_as_requests_under_way() -> None:
    service = Service(lambda _: json_reply("200 OK", {"text": "ONE"}))
    assert outcomes(service, 8, workers=4) == ["ONE"] * 8
    assert 1 < service.num_connections <= 4


def test_a_connection_that_the_server_closes_is_replaced() -> None:
    service = Service(lambda _: json_reply("200 OK", {"text": "ONE"}, "Connection: close\r\n"))
    assert outcomes(service, 3) == ["ONE"] * 3
    assert service.num_connections == 3


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (json_reply("429 Too Many Requests", {"error": {"message": "slow down"}}), "429: slow down"),
        (json_reply("500 Oh", "what"), "500: b'\"what\"'"),
        (json_reply("200 OK", {"no": "text"}), '200: b\'{"no": "text"}\''),
        (b"", "the server's answer is no HTTP"),
        (b"SSH-2.0\r\n\r\n", "the server's answer is no HTTP"),
    ],
)
def test_failures_say_why_and_the_next_goes_on(reply: bytes, failure: str) -> None:
    service = Service(lambda number: json_reply("200 OK", {"text": "ONE"}) if number else reply)
    first, second = outcomes(service, 2)
    assert str(first).startswith(failure)
    assert second == "ONE"


def test_nobody_there() -> None:
    async def run() -> str | None:
        connection = RestConnection(GatewayAddress("http://127.0.0.1:1"), "transducer", clips := [clip("a")])
        (record,) = await run_once(connection, clips, 1)
        await connection.close()
        return record.failure

    assert str(asyncio.run(run())).startswith("cannot connect")
