"""The plain protocol of `WS /v1/stream` without a socket, a server or a clock: from messages to steps.

Audio comes as binary messages, everything else as JSON objects with a `type`; docs/realtime.md describes them, and
`live_steps.py` the steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from moulin.audio.sample_format import FormatGuard
from moulin.decoding.options import MOST_OPTIONS_BYTES
from moulin.errors import AudioError, OptionsError
from moulin.gateway.api_error import ApiError, api_error
from moulin.gateway.json_messages import read_message
from moulin.gateway.live_audio import ContainerSent, LiveAudio, Samples
from moulin.gateway.live_steps import Event, Finish, Hear, Step
from moulin.gateway.live_timeline import Timeline
from moulin.live_transcript import LiveTranscript, Segment, StreamUpdate
from moulin.quoting import quoted
from moulin.streaming.options import StreamOptions

Encoding = Literal["s16le", "f32le"]

_MOST_MESSAGE_BYTES = MOST_OPTIONS_BYTES + 1024
"""The limit on a message in JSON; audio goes into binary ones."""
_MOST_ID = 512


@dataclass(slots=True)
class LiveSession:
    """The session of one client. Its stream on Triton ends after a while without audio (`rest`); more opens another."""

    model: str
    encoding: Encoding = "s16le"
    sample_rate: int = 16_000
    _audio: LiveAudio = field(init=False)
    _guard: FormatGuard = field(init=False)
    _timeline: Timeline = field(default_factory=Timeline)
    _live: LiveTranscript = field(default_factory=LiveTranscript)
    _options: dict[str, Any] = field(default_factory=dict)
    _shown: Segment | None = None

    def __post_init__(self) -> None:
        """Raises AudioError for an unknown encoding or a rate out of range."""
        self._audio = LiveAudio(self.encoding, self.sample_rate, keeps_int16=True)
        self._guard = FormatGuard(self.encoding, self.sample_rate)

    @property
    def is_resting(self) -> bool:
        return not self._timeline.is_open

    def opening(self) -> list[Event]:
        return [_message("ready", model=self.model, encoding=self.encoding, sample_rate=self.sample_rate)]

    def receive(self, message: str | bytes) -> Iterator[Step]:
        try:
            if isinstance(message, bytes):
                yield from self._take_audio(message)
            else:
                fields = _parsed(message)
                yield from _handler(fields)(self, fields)
        except ApiError as error:
            yield self.refused(error)

    def rest(self) -> Iterator[Step]:
        if not (self.is_resting and self._audio.is_empty):
            yield self._hear(self._audio.flush(), "rest")

    def heard(self, step: Hear, update: StreamUpdate) -> Iterator[Event]:
        update = self._timeline.placed(update)
        self._live.apply(update)
        for segment in update.segments:
            if segment.is_final:
                yield _message("final", segment=segment.to_dict(), duration_sec=update.duration_sec)
            elif segment != self._shown:
                self._shown = segment
                yield _message("partial", segment=segment.to_dict(), duration_sec=update.duration_sec)
        if update.endpoint:
            yield _message("endpoint", duration_sec=update.duration_sec)
        if step.end is not None:
            self._timeline.end()

    def failed(self, error: Exception) -> Iterator[Event]:
        self._timeline.end()
        self._live.open = None
        yield self.refused(api_error(error))

    @staticmethod
    def refused(error: ApiError) -> Event:
        return _message(
            "error",
            code=error.code,
            message=error.message,
            hint=error.hint,
            param=error.param,
            retry_after_sec=error.retry_after_sec,
        )

    # The client's messages

    def _take_audio(self, data: bytes) -> Iterator[Step]:
        try:
            pieces = self._audio.accept(data)
        except ContainerSent as error:
            refusal = ApiError(400, error.message, code="invalid_audio", hint=error.hint)
            yield self.refused(refusal)
            yield Finish(refusal)
            return
        except AudioError as error:
            hint = f"{error.hint}; or the encoding is not {self.encoding}"
            raise ApiError(400, error.message, code="invalid_audio", hint=hint) from None
        yield from _doubted(self._guard.accept(data))
        for piece in pieces:
            yield self._hear(piece)

    def _set_options(self, fields: dict[str, Any]) -> Iterator[Step]:
        options = fields.get("options")
        if not isinstance(options, dict):
            raise _invalid_options(f"Expected a JSON object of options, got {quoted(options)}")
        try:
            StreamOptions().updated(options)
        except OptionsError as error:
            raise _invalid_options(error.message, error.hint) from None
        # Of a stream that is open the segment closes, and the next audio goes to another.
        yield from self.rest()
        self._options = options

    def _finish(self, _fields: dict[str, Any]) -> Iterator[Step]:
        yield from self.rest()
        yield from _doubted(self._guard.rest())
        transcript = self._live.transcript()
        yield _message(
            "done",
            text=transcript.text,
            words=[asdict(word) for word in transcript.words],
            duration_sec=round(self._audio.received_sec, 3),
        )
        yield Finish()

    def _pong(self, fields: dict[str, Any]) -> Iterator[Step]:
        sent = fields.get("id")
        if len(json.dumps(sent)) > _MOST_ID:
            raise ApiError(
                400,
                f"Expected the id of a ping to have at most {_MOST_ID} characters, got {quoted(sent)}",
                code="invalid_message",
                param="id",
            )
        yield _message("pong", id=sent)

    def _hear(self, piece: Samples, end: Literal["rest"] | None = None) -> Hear:
        self._timeline.send(len(piece))
        return Hear(piece, self.model, self._options, end)


_HANDLERS: dict[str, Callable[[LiveSession, dict[str, Any]], Iterator[Step]]] = {
    "options": LiveSession._set_options,
    "end": LiveSession._finish,
    "ping": LiveSession._pong,
}


def _message(kind: str, **fields: Any) -> Event:
    return Event({"type": kind, **fields})


def _doubted(doubt: str | None) -> Iterator[Event]:
    if doubt is not None:
        yield _message("warning", code="sample_format", message=doubt)


def _invalid_options(message: str, hint: str | None = None) -> ApiError:
    return ApiError(400, message, code="invalid_options", param="options", hint=hint)


def _parsed(text: str) -> dict[str, Any]:
    return read_message(
        text,
        most_bytes=_MOST_MESSAGE_BYTES,
        not_json="invalid_json",
        no_object="invalid_message",
        hint="audio goes into binary messages",
    )


def _handler(fields: dict[str, Any]) -> Callable[[LiveSession, dict[str, Any]], Iterator[Step]]:
    kind = fields.get("type")
    handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
    if handler is None:
        raise ApiError(
            400, f"Expected a type of {', '.join(_HANDLERS)}, got {quoted(kind)}", code="invalid_message", param="type"
        )
    return handler
