"""OpenAI's realtime transcription session without a socket, a server or a clock: from events to steps.

`live_steps.py` describes the steps. A stream on Triton begins with the first audio and ends with a commit, with a
change of its options, and after a while without audio. Its segments become items. With turn detection an item lasts
until the speaker pauses; without it, until the client commits.

An item is announced (`conversation.item.added`) before its first delta, as in progress; OpenAI announces it when it is
committed, which is too late for deltas during speech. When `clear` drops an announced item,
`conversation.item.deleted` is sent.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import zip_longest
from typing import Any, Literal

from moulin.errors import AudioError
from moulin.gateway.api_error import ApiError, api_error
from moulin.gateway.ignored_fields import IgnoredFields
from moulin.gateway.json_messages import read_message
from moulin.gateway.live_audio import Samples
from moulin.gateway.live_steps import Event, Find, Forget, Hear, Step
from moulin.gateway.live_timeline import Timeline
from moulin.gateway.realtime_config import RealtimeConfig
from moulin.gateway.realtime_item import Delta, Item, log_probs
from moulin.live_transcript import Segment, StreamUpdate
from moulin.quoting import quoted
from moulin.transcript import Word

MAX_APPEND_BYTES = 15 << 20
"""OpenAI's limit for one event, as base64."""
MIN_COMMIT_SEC = 0.1

_MOST_EVENT_BYTES = 16 << 20
_MOST_ID = 512
"""OpenAI's limit for a client's event_id."""

_RESOLUTION_SEC = 0.08
"""The resolution of a gap between words: one encoder frame on either side."""


def random_id(kind: str) -> str:
    """An id in OpenAI's form: item_7Qb…"""
    return f"{kind}_{secrets.token_hex(11)}"


def realtime_refusal(
    error: ApiError, event_id: str | None = None, new_id: Callable[[str], str] = random_id
) -> dict[str, Any]:
    """An `error` event, with the `event_id` of the client's event that caused it."""
    return {"type": "error", "event_id": new_id("event"), "error": {**error.body()["error"], "event_id": event_id}}


class RealtimeSession:
    """The session of one client."""

    def __init__(
        self,
        config: RealtimeConfig,
        *,
        older: bool = False,
        refusal: ApiError | None = None,
        ignored: IgnoredFields | None = None,
        new_id: Callable[[str], str] = random_id,
    ) -> None:
        """`older`: the client asked for the API's beta form. `refusal`: the error about the URL's model, if any."""
        self._config = config
        self._older, self._refusal, self._new_id = older, refusal, new_id
        self._ignored = ignored or IgnoredFields(strict=False)
        self._id = new_id("sess")
        self._audio, self._guard = config.format.decoder(), config.format.guard()
        self._audio_sec = 0.0  # received in earlier formats
        self._timeline = Timeline()
        self._buffer_start_sec = 0.0  # beginning of the audio that belongs to no committed item
        self._item: Item | None = None
        self._last_item_id: str | None = None

    @property
    def received_sec(self) -> float:
        """The duration of all audio of the session."""
        return self._audio_sec + self._audio.received_sec

    @property
    def is_resting(self) -> bool:
        return not self._timeline.is_open

    def opening(self) -> Iterator[Event]:
        if self._older:
            yield self._event("transcription_session.created", session=self._config.to_older_dict(self._id))
        else:
            yield self._event("session.created", session=self._config.to_dict(self._id))
        if self._refusal is not None:
            yield self.refused(self._refusal)

    def receive(self, message: str | bytes) -> Iterator[Step]:
        event_id = None
        try:
            fields = _parsed(message)
            event_id = _event_id(fields)
            yield from self._handler(fields)(self, fields)
        except ApiError as error:
            yield self.refused(error, event_id)

    def rest(self) -> Iterator[Step]:
        if not (self.is_resting and self._audio.is_empty):
            yield self._end_stream("rest")

    def heard(self, step: Hear, update: StreamUpdate) -> Iterator[Event]:
        update = self._timeline.placed(update)
        for segment, following in zip_longest(update.segments, update.segments[1:]):
            yield from self._say(segment)
            if segment.is_final and step.end != "commit" and self._pauses(segment, following, update):
                yield from self._stop(segment)
        if step.end is not None:
            self._timeline.end()
        if self._item is not None and step.end == "commit":
            yield from self._complete()
        elif self._item is not None and step.end == "rest" and self._config.turn_detection is not None:
            yield from self._stop(None)

    def failed(self, error: Exception) -> Iterator[Event]:
        refusal = api_error(error)
        self._timeline.end()
        self._buffer_start_sec = self.received_sec
        item = self._item
        if item is not None:
            self._item, self._last_item_id = None, item.id
            yield self._event(
                "conversation.item.input_audio_transcription.failed",
                item_id=item.id,
                content_index=0,
                error={"type": refusal.type, "code": refusal.code, "message": str(refusal), "param": None},
            )
        yield self.refused(refusal)

    def refused(self, error: ApiError, event_id: str | None = None) -> Event:
        """`event_id` is that of the client's event that caused the error."""
        return Event(realtime_refusal(error, event_id, self._new_id))

    # The client's events

    def _handler(self, fields: dict[str, Any]) -> Callable[[RealtimeSession, dict[str, Any]], Iterator[Step]]:
        kind = fields.get("type")
        if kind is None:
            raise ApiError(400, "Missing required parameter: 'type'.", code="missing_required_parameter", param="type")
        handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
        if handler is None:
            known = ", ".join(f"'{name}'" for name in _HANDLERS)
            raise ApiError(
                400,
                f"Invalid value: {quoted(kind)}. Supported values are: {known}.",
                code="invalid_value",
                param="type",
            )
        return handler

    def _update(self, fields: dict[str, Any]) -> Iterator[Step]:
        yield from self._change(self._config.updated(_required(fields, "session")))
        yield self._event("session.updated", session=self._config.to_dict(self._id), **self._named_ignored())

    def _update_older(self, fields: dict[str, Any]) -> Iterator[Step]:
        yield from self._change(self._config.updated_older(_required(fields, "session")))
        self._older = True
        shown = self._config.to_older_dict(self._id)
        yield self._event("transcription_session.updated", session=shown, **self._named_ignored())

    def _named_ignored(self) -> dict[str, Any]:
        return {"ignored": list(self._config.ignored)} if self._config.ignored else {}

    def _change(self, config: RealtimeConfig) -> Iterator[Step]:
        """Apply new settings; those that concern an open stream end it, and the next has them."""
        old = self._config
        if config.model != old.model:
            find = Find(config.model)
            yield find
            if find.model is None:
                raise find.refusal or ApiError(404, f"There is no model {quoted(find.name)}", code="model_not_found")
            config = config.served_by(find.model)
        config = config.with_languages_checked(old)
        self._ignored.note(config.ignored)
        detects, detected = config.turn_detection is not None, old.turn_detection is not None
        if (config.model, config.format, config.stream_options, detects) != (
            (old.model, old.format, old.stream_options, detected)
        ):
            yield from self.rest()
        if detects and self._item is not None and not detected:
            # An item begun without turn detection has no speech_started event, so it must not end with speech_stopped.
            yield self._committed()
            yield from self._complete()
        self._config = config
        if config.format != old.format:
            self._audio_sec += self._audio.received_sec
            self._audio, self._guard = config.format.decoder(), config.format.guard()

    def _append(self, fields: dict[str, Any]) -> Iterator[Step]:
        data = _decoded(_required(fields, "audio"))
        try:
            pieces = self._audio.accept(data)
        except AudioError as error:
            raise ApiError(400, error.message, code="invalid_audio", param="audio", hint=error.hint) from None
        yield from self._doubted(self._guard.accept(data))
        for piece in pieces:
            yield self._hear(piece, None)

    def _doubted(self, doubt: str | None) -> Iterator[Step]:
        """The protocol has no event for warnings. Some clients end their work at the first `error`, and all pass over
        events that they do not know."""
        if doubt is not None:
            yield self._event("warning", code="sample_format", message=doubt, param="audio")

    def _commit(self, _fields: dict[str, Any]) -> Iterator[Step]:
        buffered_sec = self.received_sec - self._buffer_start_sec
        if buffered_sec < MIN_COMMIT_SEC:
            raise ApiError(
                400,
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{MIN_COMMIT_SEC * 1000:.0f}ms of audio, but buffer only has {buffered_sec * 1000:.2f}ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        yield from self._doubted(self._guard.rest())
        if self._item is None:
            yield from self._announce(self._buffer_start_sec)
        yield self._committed()
        if self.is_resting and self._audio.is_empty:
            yield from self._complete()
        else:
            yield self._end_stream("commit")

    def _clear(self, _fields: dict[str, Any]) -> Iterator[Step]:
        self._audio.discard()
        self._timeline.end()
        self._timeline.skip_to(self.received_sec)
        self._buffer_start_sec = self.received_sec
        yield Forget()
        if self._item is not None:
            yield self._event("conversation.item.deleted", item_id=self._item.id)
            self._item = None
        yield self._event("input_audio_buffer.cleared")

    # The stream on Triton

    def _hear(self, piece: Samples, end: Literal["commit", "rest"] | None) -> Hear:
        self._timeline.send(len(piece))
        return Hear(piece, self._config.model, self._config.stream_options, end)

    def _end_stream(self, end: Literal["commit", "rest"]) -> Hear:
        return self._hear(self._audio.flush(), end)

    # Items

    def _say(self, segment: Segment) -> Iterator[Event]:
        if self._item is None:
            detection = self._config.turn_detection
            if detection is None:
                yield from self._announce(self._buffer_start_sec)
            else:
                start_sec = max(self._buffer_start_sec, segment.start_sec - detection.prefix_padding_ms / 1000)
                yield from self._announce(start_sec, speech=True)
        assert self._item is not None
        delta = self._item.close_segment(segment) if segment.is_final else self._item.grow(segment)
        if delta.text:
            yield self._delta(self._item, delta)

    def _pauses(self, segment: Segment, following: Segment | None, update: StreamUpdate) -> bool:
        """Whether a pause closed the segment, rather than its maximum length."""
        detection = self._config.turn_detection
        if detection is None:
            return False
        if following is None:
            return not update.is_final
        gap_sec = following.start_sec - segment.end_sec
        # The gap tells of servers that do not send `ends_in_pause`.
        return segment.ends_in_pause or gap_sec > detection.silence_sec - _RESOLUTION_SEC

    def _announce(self, start_sec: float, *, speech: bool = False) -> Iterator[Event]:
        item = self._item = Item(self._new_id("item"), self._last_item_id, start_sec)
        if speech:
            yield self._event("input_audio_buffer.speech_started", item_id=item.id, audio_start_ms=_ms(start_sec))
        name = "created" if self._older else "added"
        yield self._event(
            f"conversation.item.{name}", previous_item_id=item.previous_id, item=_user_message(item, "in_progress")
        )

    def _stop(self, last: Segment | None) -> Iterator[Event]:
        """End the turn, after a pause behind `last` or because no more audio comes."""
        item, detection = self._item, self._config.turn_detection
        assert item is not None
        assert detection is not None
        end_sec = self.received_sec
        if last is not None:
            end_sec = min(end_sec, last.end_sec + detection.silence_sec)
        yield self._event("input_audio_buffer.speech_stopped", item_id=item.id, audio_end_ms=_ms(end_sec))
        yield self._committed()
        yield from self._complete(end_sec)

    def _committed(self) -> Event:
        assert self._item is not None
        return self._event(
            "input_audio_buffer.committed", item_id=self._item.id, previous_item_id=self._item.previous_id
        )

    def _complete(self, end_sec: float | None = None) -> Iterator[Event]:
        item = self._item
        assert item is not None
        self._item, self._last_item_id = None, item.id
        self._buffer_start_sec = self.received_sec if end_sec is None else end_sec
        seconds = round(self._buffer_start_sec - item.start_sec, 3)
        yield self._event(
            "conversation.item.input_audio_transcription.completed",
            item_id=item.id,
            content_index=0,
            transcript=item.text,
            usage={"type": "duration", "seconds": seconds},
            words=[asdict(word) for word in item.words],
            **self._logprobs(item.words),
        )
        if not self._older:
            yield self._event(
                "conversation.item.done", previous_item_id=item.previous_id, item=_user_message(item, "completed")
            )

    def _delta(self, item: Item, delta: Delta) -> Event:
        return self._event(
            "conversation.item.input_audio_transcription.delta",
            item_id=item.id,
            content_index=0,
            delta=delta.text,
            **self._logprobs(delta.words),
        )

    def _logprobs(self, words: Iterable[Word]) -> dict[str, Any]:
        return {"logprobs": log_probs(tuple(words))} if self._config.logprobs else {}

    def _event(self, kind: str, **fields: Any) -> Event:
        return Event({"type": kind, "event_id": self._new_id("event"), **fields})


_HANDLERS: dict[str, Callable[[RealtimeSession, dict[str, Any]], Iterator[Step]]] = {
    "session.update": RealtimeSession._update,
    "transcription_session.update": RealtimeSession._update_older,
    "input_audio_buffer.append": RealtimeSession._append,
    "input_audio_buffer.commit": RealtimeSession._commit,
    "input_audio_buffer.clear": RealtimeSession._clear,
}


def _parsed(message: str | bytes) -> dict[str, Any]:
    return read_message(message, most_bytes=_MOST_EVENT_BYTES, not_json="invalid_json", no_object="invalid_event")


def _event_id(fields: dict[str, Any]) -> str | None:
    """The client's id of its event, which errors about it repeat. Raises ApiError."""
    event_id = fields.get("event_id")
    if isinstance(event_id, str) and len(event_id) > _MOST_ID:
        raise ApiError(
            400,
            f"Invalid 'event_id': expected at most {_MOST_ID} characters, got {len(event_id):,}.",
            code="string_above_max_length",
            param="event_id",
        )
    return event_id if isinstance(event_id, str) else None


def _required(fields: dict[str, Any], name: str) -> Any:
    if name not in fields:
        raise ApiError(400, f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)
    return fields[name]


def _decoded(audio: Any) -> bytes:
    if not isinstance(audio, str):
        raise ApiError(
            400, f"Expected audio as a base64 string, got {type(audio).__name__}", code="invalid_type", param="audio"
        )
    if len(audio) > MAX_APPEND_BYTES:
        raise ApiError(
            400,
            f"Expected at most {MAX_APPEND_BYTES >> 20} MiB of base64 in one event, got {len(audio)} bytes",
            code="audio_too_large",
            param="audio",
            hint="append it in pieces",
        )
    try:
        return base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"The audio is not base64: {error}", code="invalid_audio", param="audio") from None


def _user_message(item: Item, status: str) -> dict[str, Any]:
    transcript = item.text if status == "completed" else None
    return {
        "id": item.id,
        "object": "realtime.item",
        "type": "message",
        "status": status,
        "role": "user",
        "content": [{"type": "input_audio", "transcript": transcript}],
    }


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
