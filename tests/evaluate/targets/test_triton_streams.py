"""Triton's sequences without Triton: order, ids, ends, and what travels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from moulin.evaluate.connection import Record
from moulin.evaluate.targets.triton_grpc import GrpcWire
from moulin.evaluate.targets.triton_http import HttpWire
from moulin.evaluate.targets.triton_streams import Done, Request, TritonConnection
from tests.evaluate.fake_server import clip
from tests.evaluate.virtual_time import run_virtually


class FakeWire:
    """Keeps what was requested until a test answers it."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.waiting: list[Done] = []
        self.closed = False

    def serialize(
        self, samples: NDArray[np.float32], *, valid: int, start: bool, end: bool, options: str = ""
    ) -> Request:
        assert not options
        return Request(f"{len(samples)}/{valid}{' start' if start else ''}{' end' if end else ''} #".encode(), b"!")

    def serialize_whole(self, samples: NDArray[np.float32], options: str = "") -> bytes:
        return f"{len(samples)} whole {options}".encode()

    def serialize_id(self, sequence_id: int) -> bytes:
        return str(sequence_id).encode()

    def request(self, message: bytes, done: Done) -> None:
        self.sent.append(message)
        self.waiting.append(done)

    def text(self, body: bytes) -> str:
        return body.decode()

    async def close(self) -> None:
        self.closed = True

    def answer(self, body: bytes = b"", failure: str | None = None) -> None:
        self.waiting.pop(0)(body, failure)


def with_stream(test: Callable[[FakeWire, TritonConnection, Record], None], num_chunks: int = 3) -> None:
    async def run() -> None:
        wire, speech = FakeWire(), clip(num_chunks, last_samples=100)
        test(wire, TritonConnection(wire, [speech]), Record(speech))

    run_virtually(run())


def test_a_chunk_waits_for_the_reply_to_the_one_before() -> None:
    def check(wire: FakeWire, connection: TritonConnection, record: Record) -> None:
        stream = connection.open(record)
        for index in range(3):
            stream.send(index)
        assert wire.sent == [b"5120/5120 start #1!"]
        wire.answer()
        assert wire.sent[1:] == [b"5120/5120 #1!"]
        wire.answer()
        assert wire.sent[2:] == [b"100/100 end #1!"]
        wire.answer(b"ONE TWO")
        assert record.text == "ONE TWO"
        assert not wire.waiting
        assert not any(np.isnan(record.replied))

    with_stream(check)


def test_a_stream_of_one_chunk_starts_and_ends_at_once() -> None:
    def check(wire: FakeWire, connection: TritonConnection, record: Record) -> None:
        connection.open(record).send(0)
        assert wire.sent == [b"100/100 start end #1!"]

    with_stream(check, num_chunks=1)


def test_every_stream_is_a_sequence_of_its_own() -> None:
    def check(wire: FakeWire, connection: TritonConnection, record: Record) -> None:
        connection.open(record).send(0)
        connection.open(Record(record.clip)).send(0)
        assert wire.sent == [b"5120/5120 start #1!", b"5120/5120 start #2!"]

    with_stream(check)


def test_a_refusal_ends_the_stream_and_what_waits_is_not_sent() -> None:
    def check(wire: FakeWire, connection: TritonConnection, record: Record) -> None:
        stream = connection.open(record)
        stream.send(0)
        stream.send(1)
        wire.answer(failure="the pool is full")
        assert record.failure == "the pool is full"
        assert len(wire.sent) == 1
        assert np.isnan(record.replied[0])

    with_stream(check)


def test_an_abandoned_stream_is_ended_behind_what_is_under_way_and_closing_waits_for_it() -> None:
    async def run() -> None:
        wire, speech = FakeWire(), clip(4)
        connection, record = TritonConnection(wire, [speech]), Record(speech)
        stream, unused = connection.open(record), connection.open(Record(speech))
        stream.send(0)
        stream.send(1)
        stream.abandon()
        unused.abandon()
        closing = asyncio.create_task(connection.close())
        await asyncio.sleep(0.1)
        assert not closing.done()
        wire.answer()
        assert wire.sent[1:] == [b"1/0 end #1!"]
        wire.answer(b"ONE")
        await closing
        assert wire.closed
        assert record.text is None

    run_virtually(run())


def test_closing_does_not_wait_for_ever() -> None:
    async def run() -> None:
        wire, speech = FakeWire(), clip(4)
        connection = TritonConnection(wire, [speech])
        stream = connection.open(Record(speech))
        stream.send(0)
        stream.abandon()
        await connection.close()
        assert wire.closed

    run_virtually(run())


@pytest.mark.parametrize("sequence_id", [1, 12345, 2**63 - 1])
def test_grpc_messages_are_what_triton_would_read(sequence_id: int) -> None:
    samples = np.arange(100, dtype=np.float32)

    async def message() -> bytes:
        wire = GrpcWire("127.0.0.1:1")
        request = wire.serialize(samples, valid=90, start=True, end=False)
        await wire.close()
        return request.before + wire.serialize_id(sequence_id) + request.after

    parsed = service_pb2.ModelInferRequest.FromString(asyncio.run(message()))
    assert parsed.model_name == "transducer"
    assert {name: value.WhichOneof("parameter_choice") for name, value in parsed.parameters.items()} == {
        "sequence_id": "int64_param",
        "sequence_start": "bool_param",
        "sequence_end": "bool_param",
    }
    assert parsed.parameters["sequence_id"].int64_param == sequence_id
    assert (parsed.parameters["sequence_start"].bool_param, parsed.parameters["sequence_end"].bool_param) == (
        True,
        False,
    )
    assert [(item.name, item.datatype, list(item.shape)) for item in parsed.inputs] == [
        ("WAV", "FP32", [1, 100]),
        ("WAV_LENS", "INT32", [1, 1]),
    ]
    assert [item.name for item in parsed.outputs] == ["TRANSCRIPTS"]
    np.testing.assert_array_equal(np.frombuffer(parsed.raw_input_contents[0], "<f4"), samples)
    assert np.frombuffer(parsed.raw_input_contents[1], "<i4").tolist() == [90]


@pytest.mark.parametrize("sequence_id", [1, 12345, 2**64 - 1])
def test_http_messages_are_what_triton_would_read(sequence_id: int) -> None:
    samples = np.arange(100, dtype=np.float32)
    wire = HttpWire("127.0.0.1:8000")
    request = wire.serialize(samples, valid=90, start=False, end=True)
    message = request.before + wire.serialize_id(sequence_id) + request.after
    head, _, body = message.partition(b"\r\n\r\n")
    request_line, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    assert request_line == "POST /v2/models/transducer/infer HTTP/1.1"
    assert len(body) == int(headers["Content-Length"])
    json_bytes = int(headers["Inference-Header-Content-Length"])
    parsed = json.loads(body[:json_bytes])
    assert parsed["parameters"] == {"sequence_id": sequence_id, "sequence_start": False, "sequence_end": True}
    sizes = [item["parameters"]["binary_data_size"] for item in parsed["inputs"]]
    assert sizes == [400, 4]
    assert len(body) == json_bytes + sum(sizes)
    np.testing.assert_array_equal(np.frombuffer(body[json_bytes : json_bytes + 400], "<f4"), samples)
    assert np.frombuffer(body[-4:], "<i4").tolist() == [90]


def http_reply(text: str, *, status: str = "200 OK") -> bytes:
    data = text.encode()
    header = {
        "model_name": "transducer",
        "outputs": [
            {
                "name": "TRANSCRIPTS",
                "datatype": "BYTES",
                "shape": [1],
                "parameters": {"binary_data_size": 4 + len(data)},
            }
        ],
    }
    body = json.dumps(header).encode() + len(data).to_bytes(4, "little") + data
    return f"HTTP/1.1 {status}\r\nContent-Type: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def over_http(replies: list[list[bytes]]) -> list[tuple[bytes, str | None]]:
    """What a client sees of a server that answers each request with pieces, and then hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for pieces in replies:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(size)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    wire = HttpWire(f"{host}:{port}")
    request = wire.serialize(np.zeros(2000, np.float32), valid=2000, start=True, end=False)
    answers: list[tuple[bytes, str | None]] = []
    async with server:
        for number in range(1, len(replies) + 1):
            answered = asyncio.Event()

            def done(body: bytes, failure: str | None, answered: asyncio.Event = answered) -> None:
                answers.append((body, failure))
                answered.set()

            wire.request(request.before + wire.serialize_id(number) + request.after, done)
            await asyncio.wait_for(answered.wait(), 60)
        await wire.close()
    return answers


def test_http_replies_come_in_any_pieces() -> None:
    reply = http_reply("SEPT ÉTÉ")
    bytewise = [reply[i : i + 1] for i in range(len(reply))]
    answers = asyncio.run(over_http([[reply], bytewise, [reply[:30], reply[30:]]]))
    assert [failure for _, failure in answers] == [None] * 3
    wire = HttpWire("127.0.0.1:1")
    assert [wire.text(body) for body, _ in answers] == ["SEPT ÉTÉ"] * 3


def test_http_failures_say_why() -> None:
    body = b'{"error":"the pool is full"}'
    refused = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    plain = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nwhat"
    answers = asyncio.run(over_http([[refused], [plain], [b"HTTP/1.1 200 OK\r\n"]]))
    assert [failure for _, failure in answers] == ["the pool is full", "b'what'", "the server closed the connection"]


def test_http_where_nobody_listens() -> None:
    async def run() -> list[str | None]:
        failures: list[str | None] = []
        answered = asyncio.Event()

        def done(_: bytes, failure: str | None) -> None:
            failures.append(failure)
            answered.set()

        wire = HttpWire("127.0.0.1:1")
        wire.request(b"", done)
        await asyncio.wait_for(answered.wait(), 60)
        await wire.close()
        return failures

    (failure,) = asyncio.run(run())
    assert failure
    assert failure.startswith("cannot connect")
