"""Damaged HTTP and WebSocket traffic: an answer, and the gateway serves the next as before."""

from __future__ import annotations

import base64
import json
import logging
import socket
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from moulin.client.served_model import ServedModel
from moulin.gateway.deepgram.session import DeepgramSession
from moulin.gateway.deepgram.wish import Wish
from moulin.gateway.live_session import LiveSession
from moulin.gateway.live_steps import Event, Find, Finish, Hear, Session
from moulin.gateway.realtime_config import RealtimeConfig
from moulin.gateway.realtime_session import RealtimeSession
from moulin.live_transcript import StreamUpdate
from tests.gateway.running_gateway import running_gateway

from .conftest import Seeds
from .mutations import mutated, mutated_json

PCM = np.zeros(800, np.int16).tobytes()
VAD = {"type": "server_vad", "silence_duration_ms": 500}
INPUT = {"format": {"type": "audio/pcm", "rate": 24000}, "transcription": {"model": "m"}, "turn_detection": VAD}
EVENTS: list[Any] = [
    {"type": "session.update", "event_id": "e1", "session": {"type": "transcription", "audio": {"input": INPUT}}},
    {"type": "transcription_session.update", "session": {"input_audio_format": "g711_ulaw", "turn_detection": None}},
    {"type": "input_audio_buffer.append", "audio": base64.b64encode(PCM).decode()},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "options", "options": {"method": "greedy", "beam": 4, "endpoint": True}},
    {"type": "ping", "id": 7},
    {"type": "end"},
]
HTTP = [
    b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nX-Request-Id: a1\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 176\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF0000WAVEfmt \r\n--x--\r\n',
    b"GET /v1/stream?model=m&encoding=s16le&sample_rate=16000 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
]  # fmt: skip


@pytest.fixture(scope="module")
def gateway() -> Iterator[tuple[str, int]]:
    with running_gateway("127.0.0.1:1", allow_origins=("http://localhost",)) as address:
        host, port = address.split(":")
        yield host, int(port)


def answered(gateway: tuple[str, int], sent: bytes) -> bytes:
    """What comes back until the gateway closes the connection, or has nothing more to say."""
    with socket.create_connection(gateway, timeout=60) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while chunk := connection.recv(1 << 16):
                answer += chunk
        except ConnectionResetError:
            pass
        return answer


def is_served(gateway: tuple[str, int]) -> bool:
    return b"200 OK" in answered(gateway, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")


# Starlette leaves a file of a form without an end to the garbage collector, which closes it.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", range(len(HTTP)))
def test_http(
    gateway: tuple[str, int], number: int, seeds: Seeds, survived: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    for seed in seeds(1):
        answer = answered(gateway, mutated(HTTP[number], seed))
        status = answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "closed"
        assert status != "500", (seed, answer)
        survived[status] = survived.get(status, 0) + 1
    assert is_served(gateway)
    assert [record for record in caplog.records if record.exc_info] == []


def frame(opcode: int, payload: bytes) -> bytes:
    """A masked frame with the mask 0."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
    return bytes([0x80 | opcode]) + length + bytes(4) + payload


def test_frames(
    gateway: tuple[str, int], seeds: Seeds, survived: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    frames = frame(1, b'{"type": "ping"}') + frame(2, PCM) + frame(9, b"hello") + frame(8, struct.pack(">H", 1000))
    for seed in seeds(1):
        answer = answered(gateway, HTTP[3] + mutated(frames, seed))
        kind = answer[9:12].decode("latin-1") or "closed"
        survived[kind] = survived.get(kind, 0) + 1
    assert is_served(gateway)
    assert [record for record in caplog.records if record.exc_info and record.name.startswith("moulin")] == []


def carried_out(session: Session, steps: Any) -> None:
    """Carry out steps as a server would that hears nothing."""
    for step in steps:
        match step:
            case Hear():
                update = StreamUpdate((), False, step.end is not None, len(step.samples) / 16_000)
                carried_out(session, session.heard(step, update))
            case Find():
                step.model = ServedModel("m", True, 30.0)
            case Event():
                json.dumps(step.fields, ensure_ascii=False).encode()
                assert len(json.dumps(step.fields)) < 200_000


@pytest.mark.parametrize("kind", ["stream", "realtime"])
def test_live_messages(kind: str, seeds: Seeds, survived: dict[str, int]) -> None:
    """Every session has several damaged messages, and works with a good one afterwards."""
    for seed in seeds(5):
        session: Session = LiveSession("m") if kind == "stream" else RealtimeSession(RealtimeConfig("m"))
        carried_out(session, session.opening())
        for number, event in enumerate(EVENTS):
            message = mutated_json(event, seed * 100 + number)
            carried_out(session, session.receive(message))
            if kind == "stream":
                carried_out(session, session.receive(mutated(PCM, seed * 100 + number)))
        good: str | bytes = PCM if kind == "stream" else json.dumps(EVENTS[2])
        events = [step for step in session.receive(good) if isinstance(step, Event)]
        assert all(step.fields["type"] != "error" for step in events), seed
        carried_out(session, session.rest())
        survived["sessions"] = survived.get("sessions", 0) + 1


def test_deepgrams_messages(seeds: Seeds, survived: dict[str, int]) -> None:
    """A message of JSON that is damaged ends no session, which has its metadata at the end."""
    orders: list[dict[str, Any]] = [{"type": "KeepAlive"}, {"type": "Finalize", "channel": 1}, {"type": "Configure"}]
    wish = Wish.of(
        {"encoding": "linear16", "sample_rate": "16000", "channels": "2", "multichannel": "true"}.items(), live=True
    )
    for seed in seeds(5):
        session = DeepgramSession(wish, "m", {}, "r", lambda: "")
        for number, order in enumerate(orders * 3):
            steps = list(session.receive(mutated_json(order, seed * 100 + number)))
            assert not any(isinstance(step, Finish) for step in steps), (seed, number)
            carried_out(session, steps)
            carried_out(session, session.receive(mutated(PCM, seed * 100 + number)))
        last = list(session.receive('{"type": "CloseStream"}'))
        assert isinstance(last[-1], Finish)
        survived["deepgram"] = survived.get("deepgram", 0) + 1
