"""Streams to the gateway's plain protocol (`WS /v1/stream`): binary PCM in, JSON out.

`partial` and `final` carry a segment each, `done` the whole text. A chunk's reply is the event whose `duration_sec`
ends within it. Chunks in which nothing new is heard have none: a `ping` follows one chunk in ten, and its `pong`,
which comes after all that was heard before it, is that chunk's reply. The other silent chunks are not measured.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from moulin.audio.waveform import SAMPLE_RATE
from moulin.evaluate.connection import Record
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets.addresses import gateway_at
from moulin.evaluate.targets.target import RunningTarget, ServerSettings
from moulin.evaluate.targets.web_socket import WebSocketConnection, WebSocketStream
from moulin.spacing import join_texts

_PING_EVERY = 10

if TYPE_CHECKING:
    from websockets.frames import Frame


def stream_at(address: str, settings: ServerSettings) -> RunningTarget:
    """The gateway at ADDRESS[#MODEL], see `gateway_at`."""
    gateway, model = gateway_at(address, settings.api_key)
    of_model = f"&model={quote(model)}" if model else ""
    url = f"{gateway.websocket('stream')}?encoding=s16le&sample_rate={SAMPLE_RATE}{of_model}"
    return RunningTarget(None, partial(_connect, url, gateway.headers, dict(settings.decoding)))


def _connect(
    url: str, headers: dict[str, str], options: dict[str, Any], clips: Sequence[Clip], _generator: int
) -> WebSocketConnection[GatewayStream]:
    messages = {id(clip): _messages(clip, number) for number, clip in enumerate(clips)}
    begin = _text_frame({"type": "options", "options": options}) if options else b""

    def opened(record: Record) -> GatewayStream:
        sent, pinged = messages[id(record.clip)]
        return GatewayStream(record, url, headers, begin, sent, pinged)

    return WebSocketConnection(opened)


class GatewayStream(WebSocketStream):
    """One session with one recording."""

    def __init__(
        self,
        record: Record,
        url: str,
        headers: dict[str, str],
        begin: bytes,
        messages: Sequence[bytes],
        pinged: Sequence[bool],
    ) -> None:
        super().__init__(record, url, headers)
        self._begin, self._messages, self._pinged = begin, messages, pinged
        self._ends = np.cumsum([len(chunk) for chunk in record.clip.chunks]) / SAMPLE_RATE
        self._closed_text = ""
        record.measured = tuple(map(operator.and_, record.measured, pinged))

    def on_open(self) -> bytes:
        return self._begin

    def messages(self, index: int) -> bytes:
        return self._messages[index]

    def on_text(self, message: Frame, now: float) -> None:
        event: dict[str, Any] = json.loads(bytes(message.data))
        if event.get("type") in ("partial", "final", "endpoint"):
            self._answered(int(np.searchsorted(self._ends, event["duration_sec"] - 1e-3)), now)
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

    def _answered(self, index: int, now: float) -> None:
        """Something was heard in the chunk `index`."""
        record, last = self.record, len(self._pinged) - 1
        if index < last and not self._pinged[index] and math.isnan(record.replied[index]):
            record.replied[index] = now
            measured = record.clip.measured[index]
            record.measured = (*record.measured[:index], measured, *record.measured[index + 1 :])


def _messages(clip: Clip, number: int) -> tuple[list[bytes], list[bool]]:
    """What is sent with each chunk, and whether a ping is. The pings of different clips come at different times."""
    from websockets.frames import Frame, Opcode

    frames = [
        Frame(Opcode.BINARY, (np.clip(chunk, -1, 1) * 32767).astype("<i2").tobytes()).serialize(mask=True)
        for chunk in clip.chunks
    ]
    last = len(frames) - 1
    pinged = [index != last and (index + number) % _PING_EVERY == 0 for index in range(len(frames))]
    pings = [_text_frame({"type": "ping", "id": index}) if ping else b"" for index, ping in enumerate(pinged)]
    pings[-1] = _text_frame({"type": "end"})
    return [frame + ping for frame, ping in zip(frames, pings, strict=True)], pinged


def _text_frame(event: dict[str, Any]) -> bytes:
    from websockets.frames import Frame, Opcode

    return Frame(Opcode.TEXT, json.dumps(event).encode()).serialize(mask=True)
