"""Streams to the gateway's plain protocol (`WS /v1/stream`): binary PCM in, JSON out.

`partial` and `final` carry a segment each, `done` the whole text. A `ping` follows each chunk: its `pong` comes after
all that was heard in the audio before it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np

from moulin.audio.waveform import SAMPLE_RATE
from moulin.errors import OptionsError
from moulin.evaluate.connection import Record
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets.target import RunningTarget, ServerSettings
from moulin.evaluate.targets.web_socket import WebSocketConnection, WebSocketStream
from moulin.spacing import join_texts

if TYPE_CHECKING:
    from websockets.frames import Frame


def stream_at(address: str, settings: ServerSettings) -> RunningTarget:
    """The gateway at ws://HOST:PORT or wss://HOST[#MODEL]."""
    url = urlsplit(address if "://" in address else f"ws://{address}")
    if url.scheme not in ("ws", "wss") or not url.hostname:
        raise OptionsError(f"Expected ws://HOST:PORT for the target stream, got {address!r}")
    model = f"&model={quote(url.fragment)}" if url.fragment else ""
    full = f"{url.scheme}://{url.netloc}/v1/stream?encoding=s16le&sample_rate={SAMPLE_RATE}{model}"
    return RunningTarget(None, partial(_connect, full, settings.api_key, dict(settings.decoding)))


def _connect(
    url: str, api_key: str, options: dict[str, Any], clips: Sequence[Clip], _generator: int
) -> WebSocketConnection[GatewayStream]:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    messages = {id(clip): _messages(clip) for clip in clips}
    begin = _text_frame({"type": "options", "options": options}) if options else b""
    return WebSocketConnection(lambda record: GatewayStream(record, url, headers, begin, messages[id(record.clip)]))


class GatewayStream(WebSocketStream):
    """One session with one recording."""

    def __init__(
        self, record: Record, url: str, headers: dict[str, str], begin: bytes, messages: Sequence[bytes]
    ) -> None:
        super().__init__(record, url, headers)
        self._begin, self._messages = begin, messages
        self._closed_text = ""

    def on_open(self) -> bytes:
        return self._begin

    def messages(self, index: int) -> bytes:
        return self._messages[index]

    def on_text(self, message: Frame, now: float) -> None:
        event: dict[str, Any] = json.loads(bytes(message.data))
        match event.get("type"):
            case "pong":
                self.record.replied[event["id"]] = now
            case "partial":
                self.record.heard(join_texts(self._closed_text, event["segment"]["text"]), now)
            case "final":
                self._closed_text = join_texts(self._closed_text, event["segment"]["text"])
                self.record.heard(self._closed_text, now)
            case "done":
                self.record.replied[-1] = now
                self.record.heard(event["text"], now)
                self.finish(event["text"])
            case "error":
                self.fail(str(event.get("message", event)))


def _messages(clip: Clip) -> list[bytes]:
    from websockets.frames import Frame, Opcode

    frames = [
        Frame(Opcode.BINARY, (np.clip(chunk, -1, 1) * 32767).astype("<i2").tobytes()).serialize(mask=True)
        for chunk in clip.chunks
    ]
    last = len(frames) - 1
    after = [{"type": "end"} if index == last else {"type": "ping", "id": index} for index in range(len(frames))]
    return [frame + _text_frame(message) for frame, message in zip(frames, after, strict=True)]


def _text_frame(event: dict[str, Any]) -> bytes:
    from websockets.frames import Frame, Opcode

    return Frame(Opcode.TEXT, json.dumps(event).encode()).serialize(mask=True)
