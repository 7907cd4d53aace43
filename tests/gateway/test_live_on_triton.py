"""`/v1/stream` and `/v1/realtime` over sockets, on the real tritonserver, with real speech."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import kaldialign
import numpy as np
import openai
import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from moulin.arrays import Floats
from moulin.audio.decode import resample
from moulin.audio.pcm import pcm_to_float
from moulin.bundle.load import load_bundle
from moulin.gateway import live_connection
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.transcript import Transcript
from moulin.triton_repo.repository import build_streaming_repository
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES
from tests.conftest import MAX_STREAMS, TINY_STREAMING_MODEL, Recording

from .running_gateway import running_gateway

pytestmark = pytest.mark.triton

TIMEOUT_SEC = 300.0


@pytest.fixture(scope="module")
def gateway(server: TritonServer) -> Iterator[str]:
    with running_gateway(server.grpc_url) as address:
        yield address


def run(script: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(TIMEOUT_SEC):
            await script

    asyncio.run(bounded())


@asynccontextmanager
async def stream(gateway: str, query: str = "", **arguments: Any) -> AsyncIterator[ClientConnection]:
    """`/v1/stream`, after its greeting."""
    async with connect(f"ws://{gateway}/v1/stream{query}", **arguments) as connection:
        assert (await receive(connection))["type"] == "ready"
        yield connection


async def receive(connection: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await connection.recv())
    return message


async def until(connection: ClientConnection, kind: str) -> list[dict[str, Any]]:
    """Messages up to one of that type."""
    messages = [await receive(connection)]
    while messages[-1]["type"] != kind:
        assert messages[-1]["type"] != "error", messages[-1]
        messages.append(await receive(connection))
    return messages


async def closed(connection: ClientConnection) -> tuple[int, str]:
    """The code and the reason with which the server closes, whatever comes before."""

    async def read_on() -> None:
        while True:
            await connection.recv()

    with pytest.raises(ConnectionClosed) as caught:
        await read_on()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def s16(waveform: Floats) -> bytes:
    return (waveform * 32767).astype("<i2").tobytes()


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    for begin in range(0, len(data), size):
        yield data[begin : begin + size]


# The plain protocol


@pytest.mark.parametrize(
    ("query", "piece_bytes", "encode"),
    [
        ("", 640, s16),
        ("?encoding=f32le&sample_rate=16000", 9_999, lambda w: w.astype("<f4").tobytes()),
        ("?sample_rate=48000&model=transducer", 5_001, lambda w: s16(resample(w, 16_000, 48_000))),
    ],
)
def test_speech_becomes_what_it_is_in_process(
    gateway: str,
    recordings: list[Recording],
    heard_live: list[Transcript],
    query: str,
    piece_bytes: int,
    encode: Callable[[Floats], bytes],
) -> None:
    async def script() -> None:
        async with stream(gateway, query) as connection:
            for piece in in_pieces(encode(recordings[0].waveform), piece_bytes):
                await connection.send(piece)
            # All is said but the end: the text is there, and still open.
            partials = await until(connection, "partial")
            while len(partials[-1]["segment"]["words"]) < 8:
                partials += await until(connection, "partial")
            await connection.send('{"type": "end"}')
            *_, done = await until(connection, "done")
            assert done["text"] == heard_live[0].text
            times = np.array([word["start_sec"] for word in done["words"]])
            np.testing.assert_allclose(times, [word.start_sec for word in heard_live[0].words], atol=0.081)
            assert done["duration_sec"] == pytest.approx(len(recordings[0].waveform) / 16_000, abs=0.001)
            assert await closed(connection) == (1000, "")

    run(script())


def test_hotwords_come_and_go_while_somebody_speaks(
    gateway: str, recordings: list[Recording], heard_live: list[Transcript]
) -> None:
    changes = [{"hotwords": ["zero"], "hotwords_score": 0.01}, {}, {"method": "modified_beam_search"}]

    async def script() -> None:
        async with stream(gateway) as connection:
            for at, options in enumerate(changes):
                await connection.send(json.dumps({"type": "options", "options": options}))
                await connection.send(s16(recordings[at].waveform))
            await connection.send('{"type": "end"}')
            *_, done = await until(connection, "done")
        said = [heard_live[at].text for at in range(len(changes))]
        errors = kaldialign.edit_distance(" ".join(said).split(), done["text"].split())["total"]
        assert errors <= 2, (said, done["text"])  # two of the three are searched with a beam
        assert said[1] in done["text"]

    run(script())


def test_endpoints_close_segments_and_options_are_taken(gateway: str, recordings: list[Recording]) -> None:
    pause = np.zeros(16_000, np.float32)
    speech = np.concatenate([recordings[0].waveform[:32_000], pause, recordings[1].waveform[:32_000], pause])

    async def segments(options: dict[str, Any]) -> list[str]:
        async with stream(gateway) as connection:
            await connection.send(json.dumps({"type": "options", "options": options}))
            await connection.send(s16(speech))
            await connection.send('{"type": "end"}')
            return [m["segment"]["text"] for m in await until(connection, "done") if m["type"] == "final"]

    async def script() -> None:
        cut = await segments({"rule2_min_trailing_silence_sec": 0.4})
        assert len(cut) >= 2
        assert len(await segments({"endpoint": False})) == 1

    run(script())


def test_what_comes_too_fast_waits(gateway: str, recordings: list[Recording]) -> None:
    """A client that sends two minutes at once, more than the sockets' buffers hold, loses nothing."""
    silence = np.zeros(16_000 * 120, np.float32)

    async def script() -> None:
        async with stream(gateway, "?encoding=f32le") as connection:
            for piece in in_pieces(np.concatenate([silence, recordings[0].waveform]).tobytes(), 1 << 18):
                await connection.send(piece)
            await connection.send('{"type": "end"}')
            *_, done = await until(connection, "done")
            assert done["duration_sec"] > 120
            assert len(done["words"]) >= 8
            assert done["words"][0]["start_sec"] > 120

    run(script())


def test_half_a_message_of_everything(gateway: str) -> None:
    """Mistakes in any order leave the connection as it was."""

    async def script() -> None:
        async with stream(gateway) as connection:
            for message in (
                "",
                "{",
                "[]",
                '{"type": "begin"}',
                '{"type": "options"}',
                '{"type": "options", "options": 1}',
            ):
                await connection.send(message)
                assert (await receive(connection))["type"] == "error"
            for nothing in (b"", b"\x00"):
                await connection.send(nothing)
            await connection.send('{"type": "ping", "id": 3}')
            assert await receive(connection) == {"type": "pong", "id": 3}
            await connection.send('{"type": "end"}')
            assert (await receive(connection))["text"] == ""
            assert await closed(connection) == (1000, "")

    run(script())


@pytest.mark.parametrize(
    ("query", "code", "param", "close_code"),
    [
        ("?model=whale-song", "model_not_found", "model", 4404),
        ("?model=tiny-conformer", "model_not_found", "model", 4404),
        ("?encoding=mp3", "invalid_value", "encoding", 4400),
        ("?sample_rate=many", "invalid_value", "sample_rate", 4400),
        ("?sample_rate=3", "invalid_value", "sample_rate", 4400),
        ("?rate=16000", "unknown_parameter", "rate", 4400),
        ("?sample_rate=16000&sample_rate=8000", "invalid_value", "sample_rate", 4400),
    ],
)
def test_who_cannot_be_served_is_told(gateway: str, query: str, code: str, param: str, close_code: int) -> None:
    async def script() -> None:
        async with connect(f"ws://{gateway}/v1/stream{query}") as connection:
            refused = await receive(connection)
            assert (refused["type"], refused["code"], refused["param"]) == ("error", code, param)
            assert await closed(connection) == (close_code, refused["message"])

    run(script())


def test_a_full_server_says_so_and_serves_again(gateway: str) -> None:
    query = f"?model={TINY_STREAMING_MODEL}"
    second = s16(np.zeros(16_000, np.float32))

    async def script() -> None:
        async with AsyncExitStack() as stack:
            for _ in range(MAX_STREAMS):
                connection = await stack.enter_async_context(stream(gateway, query))
                await connection.send(second)
                await connection.send('{"type": "ping"}')
                await until(connection, "pong")  # the audio before it has been heard: the slot is taken
            async with stream(gateway, query) as late:
                await late.send(second)
                refused = await receive(late)
                assert (refused["code"], refused["retry_after_sec"]) == ("server_busy", 1.0)
                assert f"{MAX_STREAMS} streams are in use" in refused["message"]
                assert (await closed(late))[0] == 1013
            # One goes without a word: its place is free.
            connection.transport.abort()
            await connection.wait_closed()
            while True:
                async with stream(gateway, query) as late:
                    await late.send(second)
                    await late.send('{"type": "end"}')
                    if (await receive(late))["type"] != "error":
                        break
                await asyncio.sleep(0.1)

    run(script())


def test_more_than_the_gateway_takes(server: TritonServer) -> None:
    async def script(gateway: str) -> None:
        async with stream(gateway), connect(f"ws://{gateway}/v1/stream") as late:
            assert (await receive(late))["code"] == "server_busy"
            assert (await closed(late))[0] == 1013
        async with stream(gateway):
            pass

    with running_gateway(server.grpc_url, max_streams=1) as address:
        run(script(address))


def test_whoever_sends_nothing_is_sent_away(server: TritonServer, recordings: list[Recording]) -> None:
    async def script(gateway: str) -> None:
        async with stream(gateway) as connection:
            await connection.send(s16(recordings[0].waveform))
            messages = []
            with contextlib.suppress(ConnectionClosed):
                while True:
                    messages.append(await receive(connection))
            assert connection.close_code == 4408
            assert connection.close_reason == "Nothing has come for 0.5 s"
            kinds = [message["type"] for message in messages]
            assert "final" in kinds  # what was said is not lost
            assert "error" not in kinds

    with running_gateway(server.grpc_url, session_idle_sec=0.5) as address:
        run(script(address))


def test_sessions_without_audio_hold_no_place(server: TritonServer, recordings: list[Recording]) -> None:
    """Frameworks connect beforehand. Whoever speaks has a place, until it has been silent for long enough."""
    audio = base64.b64encode(s16(resample(recordings[0].waveform, 16_000, 24_000))[:48_000]).decode()
    append = json.dumps({"type": "input_audio_buffer.append", "audio": audio})

    async def script(gateway: str) -> None:
        async with AsyncExitStack() as stack:
            first, second, third = [
                await stack.enter_async_context(connect(f"ws://{gateway}/v1/realtime", max_queue=None))
                for _ in range(3)
            ]
            for connection in (first, second, third):
                assert (await receive(connection))["type"] == "session.created"
            await first.send(append)
            await first.send('{"type": "input_audio_buffer.clear"}')
            await until(first, "input_audio_buffer.cleared")
            await second.send(append)
            assert (await receive(second))["error"]["code"] == "server_busy"
            assert (await closed(second))[0] == 1013
            await asyncio.sleep(1.5)
            await third.send(append)
            await third.send('{"type": "input_audio_buffer.commit"}')
            await until(third, "conversation.item.input_audio_transcription.completed")
            await first.send("{")
            assert (await receive(first))["error"]["code"] == "invalid_json"

    with running_gateway(server.grpc_url, max_streams=1, stream_idle_sec=1.0) as address:
        run(script(address))


def test_a_pause_in_the_audio_frees_the_slot_and_loses_nothing(
    gateway: str, recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_connection, "REST_SEC", 0.3)

    async def script() -> None:
        async with stream(gateway) as connection:
            for expected in (0, 1):
                await connection.send(s16(recordings[expected].waveform))
                messages = [await receive(connection)]
                while messages[-1]["type"] != "final":  # though nobody has said that this was the end
                    await connection.send('{"type": "ping"}')
                    messages.append(await receive(connection))
                assert messages[-1]["segment"]["number"] == expected
            await connection.send('{"type": "end"}')
            *_, done = await until(connection, "done")
            boundary = len(recordings[0].waveform) / 16_000
            starts = [word["start_sec"] for word in done["words"]]
            assert sum(start < boundary for start in starts) >= 8
            assert sum(start > boundary for start in starts) >= 8
            assert starts == sorted(starts)

    run(script())


def test_no_triton() -> None:
    async def script(gateway: str) -> None:
        for path in ("stream", "realtime"):
            async with connect(f"ws://{gateway}/v1/{path}") as connection:
                refused = await receive(connection)
                error = refused["error"] if path == "realtime" else refused
                assert error["code"] == "server_unavailable"
                assert (await closed(connection))[0] == 1013

    with running_gateway("127.0.0.1:9") as address:
        run(script(address))


def test_triton_dies_while_someone_speaks(tmp_path: Path, recordings: list[Recording]) -> None:
    """Whoever speaks is told, and to come back; a new connection is told the same."""
    build_streaming_repository(
        load_bundle(BUNDLES / "lstm-streaming", expect="streaming"), tmp_path, StreamingOptions(model_name="transducer")
    )
    audio = base64.b64encode(s16(recordings[0].waveform)).decode()
    append = json.dumps({"type": "input_audio_buffer.append", "audio": audio})

    async def told(connection: ClientConnection) -> str:
        """The code of the error, after which the connection is closed."""
        message = await receive(connection)
        while message["type"] != "error":
            message = await receive(connection)
        code: str = message.get("error", message)["code"]
        assert (await closed(connection))[0] == 1013
        return code

    async def script(gateway: str, triton: TritonServer) -> None:
        async with (
            connect(f"ws://{gateway}/v1/stream", max_queue=None) as plain,
            connect(f"ws://{gateway}/v1/realtime", max_queue=None) as openai,
        ):
            await plain.send(s16(recordings[0].waveform))
            await openai.send(append)
            await until(plain, "partial")
            await until(openai, "conversation.item.added")
            assert triton.pid is not None
            os.kill(triton.pid, signal.SIGKILL)
            await plain.send(s16(recordings[0].waveform))
            await openai.send(append)
            assert [await told(plain), await told(openai)] == ["server_unavailable"] * 2
        async with connect(f"ws://{gateway}/v1/stream") as late:
            assert (await receive(late))["type"] == "ready"  # the model is known; whether it is there, nobody asks yet
            await late.send(s16(recordings[0].waveform))
            assert await told(late) == "server_unavailable"

    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_sec=1)
    with TritonServer(tmp_path, options) as triton:
        triton.wait_ready()
        with running_gateway(triton.grpc_url) as address:
            run(script(address, triton))


def test_keys_may_come_as_a_subprotocol(server: TritonServer) -> None:
    async def script(gateway: str) -> None:
        protocols: Any = ["moulin", "openai-insecure-api-key.secret"]
        async with stream(gateway, subprotocols=protocols) as connection:
            assert connection.subprotocol == "moulin"

    with running_gateway(server.grpc_url, api_keys=("secret",)) as address:
        run(script(address))


# OpenAI's realtime sessions, with OpenAI's own client


@asynccontextmanager
async def realtime(gateway: str, **input_settings: Any) -> AsyncIterator[AsyncRealtimeConnection]:
    """A transcription session, after its settings were taken."""
    async with (
        AsyncOpenAI(api_key="none", base_url=f"http://{gateway}/v1") as client,
        client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        session: Any = {"type": "transcription", "audio": {"input": input_settings}}
        await connection.session.update(session=session)
        await events_until(connection, "session.updated")
        yield connection


async def events_until(connection: Any, kind: str) -> list[Any]:
    events = []
    async for event in connection:
        assert event.type != "error", event
        events.append(event)
        if event.type.endswith(kind):
            return events
    raise AssertionError(f"closed before {kind}")


async def append(connection: Any, waveform: Floats) -> None:
    for piece in in_pieces(s16(resample(waveform, 16_000, 24_000)), 9_600):
        await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())


def test_deltas_come_while_the_person_speaks(
    gateway: str, recordings: list[Recording], heard_live: list[Transcript]
) -> None:
    async def script() -> None:
        async with realtime(gateway, turn_detection=None, transcription={"model": "gpt-4o-transcribe"}) as connection:
            await append(connection, recordings[0].waveform)
            events: list[Any] = []
            while sum(event.type.endswith(".delta") for event in events) < 7:  # nothing has been committed yet
                events += await events_until(connection, ".delta")
            await connection.input_audio_buffer.commit()
            events += await events_until(connection, "item.done")
            completed = next(event for event in events if event.type.endswith("completed"))
            assert completed.transcript == heard_live[0].text
            assert "".join(event.delta for event in events if event.type.endswith(".delta")) == completed.transcript
            assert completed.usage.seconds == pytest.approx(len(recordings[0].waveform) / 16_000, abs=0.01)
            assert {event.item_id for event in events if hasattr(event, "item_id")} == {events[-1].item.id}

    run(script())


def test_turns_are_detected(gateway: str, recordings: list[Recording], heard_live: list[Transcript]) -> None:
    pause = np.zeros(16_000 * 2, np.float32)
    spoken = [recordings[0].waveform, pause, recordings[1].waveform, pause]
    second_begins_ms = 1000 * sum(map(len, spoken[:2])) / 16_000

    async def script() -> None:
        detection = {"type": "server_vad", "silence_duration_ms": 1200}
        async with realtime(gateway, turn_detection=detection) as connection:
            await append(connection, np.concatenate(spoken))
            first = await events_until(connection, "item.done")
            second = await events_until(connection, "item.done")
            for events, heard in ((first, heard_live[0]), (second, heard_live[1])):
                kinds = [event.type for event in events if "delta" not in event.type]
                assert kinds == [
                    "input_audio_buffer.speech_started",
                    "conversation.item.added",
                    "input_audio_buffer.speech_stopped",
                    "input_audio_buffer.committed",
                    "conversation.item.input_audio_transcription.completed",
                    "conversation.item.done",
                ]
                said, wanted = events[-2].transcript.split(), heard.text.split()
                assert len(said) == pytest.approx(len(wanted), abs=1)
            assert first[0].audio_start_ms < 1000
            stopped = next(event for event in first if event.type.endswith("speech_stopped"))
            assert stopped.audio_end_ms < second[0].audio_start_ms + 300
            assert second[0].audio_start_ms == pytest.approx(second_begins_ms, abs=1000)
            assert second[1].previous_item_id == first[-1].item.id

    run(script())


def test_telephone_audio(gateway: str, recordings: list[Recording]) -> None:
    """mu-law at 8 kHz, in the older form of the API, with the SDK's older client."""
    levels = pcm_to_float(bytes(range(256)), "mulaw")
    order = np.argsort(levels)
    narrow = resample(recordings[0].waveform, 16_000, 8_000)
    codes = order[np.clip(np.searchsorted(levels[order], narrow), 0, 255)].astype(np.uint8).tobytes()

    async def script() -> None:
        async with (
            AsyncOpenAI(api_key="none", websocket_base_url=f"ws://{gateway}/v1") as client,
            client.beta.realtime.connect(
                model="whisper-1",
                extra_query={"intent": "transcription"},
                websocket_connection_options={"max_queue": None},
            ) as connection,
        ):
            await connection.transcription_session.update(
                session={"input_audio_format": "g711_ulaw", "turn_detection": {"type": "server_vad"}}
            )
            for piece in in_pieces(codes + b"\xff" * 8_000, 160):
                await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
            events = await events_until(connection, "completed")
            assert {"transcription_session.created", "transcription_session.updated"} <= {e.type for e in events}
            assert "conversation.item.created" in {event.type for event in events}

    run(script())


def test_mistakes_do_not_end_a_realtime_session(gateway: str, recordings: list[Recording]) -> None:
    async def script() -> None:
        async with connect(f"ws://{gateway}/v1/realtime?model=gpt-5", max_queue=None) as connection:
            assert (await receive(connection))["type"] == "session.created"
            assert (await receive(connection))["error"]["code"] == "model_not_found"
            for message in ("{", b"\xff", '{"type": "response.create"}', '{"type": "input_audio_buffer.commit"}'):
                await connection.send(message)
                assert (await receive(connection))["type"] == "error"
            audio = base64.b64encode(s16(resample(recordings[0].waveform, 16_000, 24_000))).decode()
            await connection.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}).encode())
            await connection.send('{"type": "input_audio_buffer.commit"}')
            # Pauses cut the recording into turns; the commit ends the last of them.
            said = ""
            while len(said.split()) < 8:
                *_, completed = await until(connection, "conversation.item.input_audio_transcription.completed")
                said += f" {completed['transcript']}"

    run(script())


def test_a_cleared_buffer_is_forgotten(gateway: str, recordings: list[Recording]) -> None:
    async def script() -> None:
        async with realtime(gateway, turn_detection=None) as connection:
            await append(connection, recordings[0].waveform)
            await connection.input_audio_buffer.clear()
            await events_until(connection, "cleared")
            await append(connection, recordings[1].waveform)
            await connection.input_audio_buffer.commit()
            events = await events_until(connection, "item.done")
            seconds = next(event.usage.seconds for event in events if event.type.endswith("completed"))
            assert seconds == pytest.approx(len(recordings[1].waveform) / 16_000, abs=0.01)

    run(script())


def test_a_browser_with_a_short_lived_key(server: TritonServer, recordings: list[Recording]) -> None:
    """Two gateways with the same keys; OpenAI's client makes the secret at one, a page opens a session at the other."""
    session: Any = {
        "type": "transcription",
        "audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}, "turn_detection": None}},
    }

    def offered(key: str) -> Any:
        return ["realtime", f"openai-insecure-api-key.{key}"]

    async def script(one: str, other: str) -> None:
        async with AsyncOpenAI(base_url=f"http://{one}/v1", api_key="second", max_retries=0) as client:
            secret = await client.realtime.client_secrets.create(session=session, expires_after={"seconds": 30})
            assert secret.expires_at - time.time() == pytest.approx(30, abs=5)
            assert secret.session.type == "transcription"
            for wrong in (5, 7201):
                with pytest.raises(openai.BadRequestError, match="seconds from 10 to 7,200"):
                    await client.realtime.client_secrets.create(expires_after={"seconds": wrong})
            wrong_anchor: Any = {"anchor": "now"}
            with pytest.raises(openai.BadRequestError, match="the anchor created_at, got 'now'"):
                await client.realtime.client_secrets.create(expires_after=wrong_anchor)
            misspelt = await client.realtime.client_secrets.with_raw_response.create(extra_body={"sesion": {}})
            assert misspelt.headers["x-moulin-ignored"] == "sesion"
            with pytest.raises(openai.BadRequestError, match="holds no conversations"):
                await client.realtime.client_secrets.create(session={"type": "realtime"})
            with pytest.raises(openai.NotFoundError, match="no model 'nobody'"):
                await client.realtime.client_secrets.create(
                    session={"type": "transcription", "audio": {"input": {"transcription": {"model": "nobody"}}}}
                )
            older = await client.beta.realtime.transcription_sessions.create(input_audio_format="g711_ulaw")
            assert older.client_secret.value.startswith("ek_")
        page: Any = "https://elsewhere.example"
        async with connect(
            f"ws://{other}/v1/realtime", subprotocols=offered(secret.value), origin=page, max_queue=None
        ) as connection:
            assert connection.subprotocol == "realtime"
            created = await receive(connection)
            assert created["session"]["audio"]["input"]["turn_detection"] is None
            audio = base64.b64encode(s16(resample(recordings[0].waveform, 16_000, 24_000))).decode()
            await connection.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            await connection.send('{"type": "input_audio_buffer.commit"}')
            *_, completed = await until(connection, "conversation.item.input_audio_transcription.completed")
            assert len(completed["transcript"].split()) >= 9
        key = offered(older.client_secret.value)
        async with connect(f"ws://{other}/v1/realtime", subprotocols=key, origin=page) as connection:
            created = await receive(connection)
            assert created["type"] == "transcription_session.created"
            assert created["session"]["input_audio_format"] == "g711_ulaw"
        for path, key in (
            ("realtime", "ek_wrong"),
            ("realtime", secret.value[:-9] + "AAAAAAAAA"),
            ("stream", secret.value),
        ):
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"ws://{other}/v1/{path}", subprotocols=offered(key))
            assert caught.value.response.status_code == 401
        async with AsyncOpenAI(base_url=f"http://{one}/v1", api_key=secret.value, max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError, match="a client secret opens WS /v1/realtime"):
                await client.models.list()
            with pytest.raises(openai.AuthenticationError):
                await client.realtime.client_secrets.create()

    keys: dict[str, Any] = {"api_keys": ("first", "second")}
    with running_gateway(server.grpc_url, **keys) as one, running_gateway(server.grpc_url, **keys) as other:
        run(script(one, other))


def test_secrets_where_there_are_no_keys(gateway: str) -> None:
    """They carry settings, and let no page in."""

    async def script() -> None:
        async with AsyncOpenAI(base_url=f"http://{gateway}/v1", api_key="none", max_retries=0) as client:
            session: Any = {"type": "transcription", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}
            secret = await client.realtime.client_secrets.create(session=session)
        protocols: Any = ["realtime", f"openai-insecure-api-key.{secret.value}"]
        async with connect(f"ws://{gateway}/v1/realtime", subprotocols=protocols) as connection:
            created = await receive(connection)
            assert created["session"]["audio"]["input"]["format"]["type"] == "audio/pcmu"
        page: Any = "https://elsewhere.example"
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"ws://{gateway}/v1/realtime", subprotocols=protocols, origin=page)
        assert caught.value.response.status_code == 403

    run(script())
