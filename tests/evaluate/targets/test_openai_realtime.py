"""OpenAI's realtime transcription session, against websockets' own server."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from moulin.evaluate.connection import Record
from moulin.evaluate.request_load import run_once
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets.openai_realtime import RealtimeConnection, realtime_at
from moulin.evaluate.targets.target import ServerSettings
from moulin.models.engine_choice import EngineChoice

TRANSCRIPTION = "conversation.item.input_audio_transcription."


def clip() -> Clip:
    """A tone of a second in four chunks, the last of them shorter."""
    samples = np.sin(np.arange(16000) * 2 * np.pi * 440 / 16000).astype(np.float32) / 2
    chunks = tuple(np.split(samples, [5000, 10000, 15000]))
    return Clip("ONE TWO", chunks, samples[:0], (), (True,) * 4, "tone")


def session(handle: Callable[[ServerConnection], Awaitable[None]], *, api_key: str = "") -> Record:
    """The record of one stream to a server that does `handle`."""

    async def run() -> Record:
        async with serve(handle, "127.0.0.1", 0) as server:
            host, port = next(iter(server.sockets)).getsockname()[:2]
            running = realtime_at(
                f"http://{host}:{port}#digits", ServerSettings(EngineChoice(threads=1), api_key=api_key)
            )
            clips = [clip()]
            connection = running.connect(clips, 0)
            assert isinstance(connection, RealtimeConnection)
            (record,) = await asyncio.wait_for(run_once(connection, clips, 1), 120)
            await connection.close()
        return record

    return asyncio.run(run())


async def send(socket: ServerConnection, kind: str, **fields: object) -> None:
    await socket.send(json.dumps({"type": kind, **fields}))


async def until_commit(socket: ServerConnection) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] != "input_audio_buffer.commit":
        events.append(json.loads(await socket.recv()))
    return events


def test_a_session_from_its_update_to_its_last_item() -> None:
    seen: list[dict[str, Any]] = []
    requests: list[tuple[str, str | None]] = []

    async def handle(socket: ServerConnection) -> None:
        assert socket.request
        requests.append((socket.request.path, socket.request.headers.get("Authorization")))
        await send(socket, "session.created", session={})
        seen.extend(await until_commit(socket))
        await send(socket, "input_audio_buffer.committed", item_id="b")
        for item, delta in (("a", "ONE"), ("b", " T"), ("b", "O")):
            await send(socket, f"{TRANSCRIPTION}delta", item_id=item, delta=delta)
        await send(socket, f"{TRANSCRIPTION}completed", item_id="a", transcript="ONE")
        await send(socket, f"{TRANSCRIPTION}completed", item_id="b", transcript="TWO")
        await socket.wait_closed()

    record = session(handle, api_key="secret")
    assert requests == [("/v1/realtime?intent=transcription", "Bearer secret")]
    assert [event["type"] for event in seen] == [
        "session.update",
        *["input_audio_buffer.append"] * 4,
        "input_audio_buffer.commit",
    ]
    config = seen[0]["session"]["audio"]["input"]
    assert config["transcription"] == {"model": "digits"}
    assert config["format"] == {"type": "audio/pcm", "rate": 24000}
    pcm = np.concatenate([np.frombuffer(base64.b64decode(event["audio"]), "<i2") for event in seen[1:5]])
    tone = np.sin(np.arange(24000) * 2 * np.pi * 440 / 24000) / 2
    np.testing.assert_allclose(pcm[1000:-1000] / 32767, tone[1000:-1000], atol=2e-3)
    assert record.text == "ONE TWO"
    assert [text for _, text in record.partials] == ["ONE", "ONE T", "ONE TO", "ONE TWO"]
    assert record.measured == (False,) * 4
    assert not np.isnan(record.replied[-1])


@pytest.mark.parametrize(
    ("kind", "fields", "failure"),
    [
        ("error", {"error": {"message": "no such model"}}, "no such model"),
        (f"{TRANSCRIPTION}failed", {"error": {"message": "too long"}, "item_id": "a"}, "too long"),
        (None, {}, "the server closed the connection: going home"),
    ],
)
def test_failures_say_why(kind: str | None, fields: dict[str, object], failure: str) -> None:
    async def handle(socket: ServerConnection) -> None:
        await until_commit(socket)
        if kind is None:
            await socket.close(1011, "going home")
        else:
            await send(socket, kind, **fields)
            await socket.wait_closed()

    assert session(handle).failure == failure
