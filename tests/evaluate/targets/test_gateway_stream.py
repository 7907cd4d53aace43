"""The gateway's plain protocol, against websockets' own server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import numpy as np
from websockets.asyncio.server import ServerConnection, serve

from moulin.evaluate.connection import Record
from moulin.evaluate.request_load import run_once
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets.gateway_stream import stream_at
from moulin.evaluate.targets.target import ServerSettings
from moulin.models.engine_choice import EngineChoice

SAMPLES = np.linspace(-1.1, 1.0, 12000, dtype=np.float32)
CLIP = Clip("ONE TWO", tuple(np.split(SAMPLES, [5120, 10240])), SAMPLES[:0], (), (True,) * 3, "ramp")


def session(
    handle: Callable[[ServerConnection], Awaitable[None]], settings: ServerSettings, clip: Clip = CLIP
) -> Record:
    """The record of one stream to a server that does `handle`."""

    async def run() -> Record:
        async with serve(handle, "127.0.0.1", 0) as server:
            host, port = next(iter(server.sockets)).getsockname()[:2]
            connection = stream_at(f"ws://{host}:{port}#my model", settings).connect([clip], 0)
            (record,) = await asyncio.wait_for(run_once(connection, [clip], 1), 120)
            await connection.close()
        return record

    return asyncio.run(run())


def test_a_session_from_its_options_to_its_text() -> None:
    paths: list[str] = []
    received: list[str | bytes] = []

    async def handle(socket: ServerConnection) -> None:
        assert socket.request
        paths.append(socket.request.path)
        while not received or received[-1] != '{"type": "end"}':
            received.append(await socket.recv())
        for kind, text, end in (("partial", "O", 0.32), ("partial", "ONE", 0.64), ("final", "ONE", 0.64)):
            await socket.send(json.dumps({"type": kind, "segment": {"text": text}, "duration_sec": end}))
        await socket.send(json.dumps({"type": "partial", "segment": {"text": "TWO"}, "duration_sec": 0.75}))
        await socket.send(json.dumps({"type": "endpoint", "duration_sec": 0.75}))
        await socket.send(json.dumps({"type": "done", "text": "ONE TWO"}))
        await socket.wait_closed()

    record = session(handle, ServerSettings(EngineChoice(threads=1), decoding={"beam": 8}))
    assert paths == ["/v1/stream?encoding=s16le&sample_rate=16000&model=my%20model"]
    assert json.loads(received[0]) == {"type": "options", "options": {"beam": 8}}
    assert [message for message in received[1:] if isinstance(message, str)] == [
        '{"type": "ping", "id": 0}',
        '{"type": "end"}',
    ]
    audio = [message for message in received if isinstance(message, bytes)]
    assert [len(message) for message in audio] == [2 * len(chunk) for chunk in CLIP.chunks]
    pcm = np.frombuffer(b"".join(audio), "<i2")
    np.testing.assert_allclose(pcm / 32767, np.clip(SAMPLES, -1, 1), atol=1e-4)
    assert [text for _, text in record.partials] == ["O", "ONE", "ONE TWO"]
    assert record.text == "ONE TWO"
    assert np.isnan(record.replied).tolist() == [True, False, False]  # no pong came, and it alone counts there
    assert record.measured == (True, True, False)


def test_silent_chunks_are_measured_where_a_ping_follows_them() -> None:
    clip = Clip("", tuple(np.zeros((25, 5120), np.float32)), SAMPLES[:0], (), (True,) * 25, "silence")

    async def handle(socket: ServerConnection) -> None:
        async for message in socket:
            if isinstance(message, str) and (event := json.loads(message))["type"] == "ping":
                await socket.send(json.dumps({"type": "pong", "id": event["id"]}))
            elif isinstance(message, str):
                await socket.send(json.dumps({"type": "done", "text": ""}))

    record = session(handle, ServerSettings(EngineChoice(threads=1)), clip)
    assert [index for index, measured in enumerate(record.measured) if measured] == [0, 10, 20]
    assert [index for index, at in enumerate(record.replied) if not np.isnan(at)] == [0, 10, 20, 24]


def test_a_refusal_says_why() -> None:
    async def handle(socket: ServerConnection) -> None:
        await socket.send(json.dumps({"type": "error", "code": "streams_full", "message": "all 8 streams are in use"}))
        await socket.close(1013, "later")

    assert session(handle, ServerSettings(EngineChoice(threads=1))).failure == "all 8 streams are in use"
