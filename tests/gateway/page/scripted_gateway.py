"""A gateway that says what a test tells it to, for states of the page that a real one is hardly ever in."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from moulin.gateway.page import page_routes

Said = dict[str, Any] | threading.Event | int
"""An event or message, or what is waited for before the next, or the code with which a live stream is closed."""

_FACTS = {
    "object": "model",
    "description": "English digits, a demo",
    "languages": ["en"],
    "hotwords": True,
    "alternatives": True,
}
MODELS = [
    {"id": "transducer", "streaming": False, "bundle": "digits-en", **_FACTS},
    {"id": "transducer_streaming", "streaming": True, "bundle": "digits-en-streaming", **_FACTS},
]


@dataclass
class Script:
    """What it says."""

    models: list[dict[str, Any]] = field(default_factory=lambda: list(MODELS))
    models_status: int = 200
    status: int = 200
    """Of uploads; others than 200 have a JSON error."""
    error: dict[str, Any] = field(default_factory=lambda: {"message": "No", "code": None})
    retry_after: int = 0
    answers: list[list[Said]] = field(default_factory=list)
    """The events of each upload; the last one's are those of all after it."""
    live: list[Said] = field(default_factory=list)
    """Messages behind `ready`."""
    told: list[dict[str, Any]] = field(default_factory=list)
    """The fields of each upload."""
    heard: list[Any] = field(default_factory=list)
    """The JSON messages of live streams."""


def word(text: str, start: float, end: float, confidence: float = 0.97, **place: int) -> dict[str, Any]:
    return {"word": text, "start": start, "end": end, "confidence": confidence, **place}


def delta(*words: dict[str, Any], peaks: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    text = "".join(f" {one['word']}" for one in words)
    fields = {"type": "transcript.text.delta", "delta": text, "heard_sec": words[-1]["end"], "words": list(words)}
    return {**fields, **({"peaks": list(peaks)} if peaks else {})}


def done(duration: float, *segments: Sequence[dict[str, Any]], **others: Any) -> dict[str, Any]:
    words = [one for segment in segments for one in segment]
    return {
        "type": "transcript.text.done",
        "text": " ".join(one["word"] for one in words),
        "duration": duration,
        "words": words,
        "segments": [
            {
                "text": " ".join(one["word"] for one in segment),
                "start": segment[0]["start"],
                "end": segment[-1]["end"],
                **({"channel": segment[0]["channel"]} if "channel" in segment[0] else {}),
            }
            for segment in segments
        ],
        **others,
    }


def live_segment(number: int, text: str, start: float, **others: Any) -> dict[str, Any]:
    """Of `WS /v1/stream`; its third word is doubtful."""
    words = [
        {
            "word": one,
            "start_sec": start + i * 0.4,
            "end_sec": start + i * 0.4 + 0.3,
            "confidence": 0.4 if i == 2 else 0.95,
        }
        for i, one in enumerate(text.split())
    ]
    times = {"start_sec": start, "end_sec": words[-1]["end_sec"]}
    return {"number": number, "text": text, "words": words, "is_final": False, **times, **others}


def hills(duration: float, first: int = 0) -> list[dict[str, Any]]:
    """Peaks that go up and down."""
    count = int(duration * 50)
    values = bytes(int(40 + 200 * abs(math.sin(i / 9) * math.sin(i / 140))) for i in range(first, first + count))
    return [{"first": first, "a_second": 50, "values": base64.b64encode(values).decode()}]


@contextmanager
def scripted_gateway(script: Script, *, history: bool = True) -> Iterator[str]:
    """Its HOST:PORT."""

    async def models(_request: Request) -> Response:
        if script.models_status != 200:
            return JSONResponse({"error": script.error}, script.models_status)
        return JSONResponse({"object": "list", "data": script.models})

    async def transcriptions(request: Request) -> Response:
        async with request.form() as form:
            script.told.append({name: form.getlist(name) for name in form if name != "file"})
        if script.status != 200:
            headers = {"retry-after": str(script.retry_after)} if script.retry_after else {}
            return JSONResponse({"error": script.error}, script.status, headers)
        answer = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]

        async def events() -> AsyncIterator[str]:
            for said in answer:
                if isinstance(said, threading.Event):
                    await _set(said)
                else:
                    yield f"data: {json.dumps(said)}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async def stream(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="moulin")
        await websocket.send_json({"type": "ready"})
        telling = asyncio.create_task(_tell(websocket, script.live))
        try:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                if (text := message.get("text")) is None:
                    continue
                fields = json.loads(text)
                script.heard.append(fields)
                if fields["type"] == "ping":
                    await websocket.send_json({"type": "pong", "id": fields["id"]})
                if fields["type"] == "end":
                    await websocket.send_json({"type": "done"})
        except WebSocketDisconnect:
            pass
        finally:
            telling.cancel()

    app = Starlette(
        routes=[
            Route("/v1/models", models),
            Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
            WebSocketRoute("/v1/stream", stream),
            *page_routes(history=history),
        ]
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the scripted gateway died while it started"
            time.sleep(0.02)
        yield "{}:{}".format(*listener.getsockname())
        server.should_exit = True
        thread.join(30)


async def _set(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.02)


async def _tell(websocket: WebSocket, said: Sequence[Said]) -> None:
    for one in said:
        if isinstance(one, threading.Event):
            await _set(one)
        elif isinstance(one, int):
            await websocket.close(one)
        else:
            await websocket.send_json(one)
