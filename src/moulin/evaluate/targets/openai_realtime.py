"""Streams to a realtime transcription session as OpenAI defines it (`WS /v1/realtime?intent=transcription`).

Audio goes as base64 of 24 kHz, 16-bit PCM, and the end of a recording is a commit; text comes as deltas, and as a whole
when an item is complete. No event answers a chunk, so that there are the latencies of the first and the final text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from moulin.audio.waveform import SAMPLE_RATE
from moulin.evaluate.connection import Connection, Record
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets.addresses import gateway_at
from moulin.evaluate.targets.target import RunningTarget, ServerSettings
from moulin.evaluate.targets.web_socket import WebSocketConnection, WebSocketStream
from moulin.spacing import join_texts

if TYPE_CHECKING:
    from websockets.frames import Frame

DEFAULT_MODEL = "transducer"
RATE = 24_000
_TRANSCRIPTION = "conversation.item.input_audio_transcription."


def realtime_at(address: str, settings: ServerSettings) -> RunningTarget:
    """The service at ADDRESS[#MODEL], see `gateway_at`."""
    gateway, model = gateway_at(address, settings.api_key)
    url = gateway.websocket("realtime?intent=transcription")
    return RunningTarget(None, partial(_connect, url, model or DEFAULT_MODEL, gateway.headers))


def _connect(url: str, model: str, headers: dict[str, str], clips: Sequence[Clip], _generator: int) -> Connection:
    return RealtimeConnection(url, model, headers, clips)


class RealtimeConnection(WebSocketConnection["RealtimeStream"]):
    """A session for each stream."""

    def __init__(self, url: str, model: str, headers: dict[str, str], clips: Sequence[Clip]) -> None:
        messages = {id(clip): _messages(clip) for clip in clips}
        begin = _session(model)

        def new_stream(record: Record) -> RealtimeStream:
            return RealtimeStream(record, url, headers, begin, messages[id(record.clip)])

        super().__init__(new_stream)


class RealtimeStream(WebSocketStream):
    """One session with one recording, whose only turn ends with it."""

    def __init__(
        self, record: Record, url: str, headers: dict[str, str], begin: bytes, messages: Sequence[bytes]
    ) -> None:
        super().__init__(record, url, headers)
        record.measured = (False,) * len(messages)
        self._begin, self._messages = begin, messages
        self._items: dict[str, str] = {}  # text by item, in their order
        self._last_item: str | None = None

    def on_open(self) -> bytes:
        return self._begin

    def messages(self, index: int) -> bytes:
        return self._messages[index]

    def on_text(self, message: Frame, now: float) -> None:
        event: dict[str, Any] = json.loads(bytes(message.data))
        match event.get("type", ""):
            case "error":
                self.fail(str(event.get("error", {}).get("message", event)))
            case "input_audio_buffer.committed":
                self._last_item = event.get("item_id")
            case kind if kind == f"{_TRANSCRIPTION}delta":
                self._heard(event["item_id"], self._items.get(event["item_id"], "") + event["delta"], now)
            case kind if kind == f"{_TRANSCRIPTION}completed":
                self._heard(event["item_id"], event["transcript"], now)
                if self._last_item in (event["item_id"], None) and not np.isnan(self.record.sent[-1]):
                    self.record.replied[-1] = now
                    self.finish(self._text)
            case kind if kind == f"{_TRANSCRIPTION}failed":
                self.fail(str(event.get("error", {}).get("message", event)))

    def _heard(self, item: str, text: str, now: float) -> None:
        self._items[item] = text
        self.record.heard(self._text, now)

    @property
    def _text(self) -> str:
        whole = ""
        for text in self._items.values():
            whole = join_texts(whole, text.strip())
        return whole


def _session(model: str) -> bytes:
    audio = {
        "input": {
            "format": {"type": "audio/pcm", "rate": RATE},
            "transcription": {"model": model},
            "turn_detection": None,
        }
    }
    return _frame({"type": "session.update", "session": {"type": "transcription", "audio": audio}})


def _messages(clip: Clip) -> list[bytes]:
    """The messages for each chunk: an append, with the last also the commit. The recording is resampled as a whole."""
    import soxr

    ends = np.cumsum([len(chunk) for chunk in clip.chunks]) * RATE // SAMPLE_RATE
    samples = soxr.resample(np.concatenate(clip.chunks), SAMPLE_RATE, RATE)
    pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    messages = [
        _frame({"type": "input_audio_buffer.append", "audio": base64.b64encode(piece.tobytes()).decode()})
        for piece in np.split(pcm, ends[:-1])
    ]
    messages[-1] += _frame({"type": "input_audio_buffer.commit"})
    return messages


def _frame(event: dict[str, Any]) -> bytes:
    from websockets.frames import Frame, Opcode

    return Frame(Opcode.TEXT, json.dumps(event).encode()).serialize(mask=True)
