"""Deepgram's live protocol without a socket, a server or a clock: from messages to steps (`live_steps.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from moulin.errors import AudioError, MoulinError
from moulin.gateway.api_error import ApiError, api_error
from moulin.gateway.deepgram.results import live_result, metadata, model_facts, model_uuid
from moulin.gateway.deepgram.wish import Wish
from moulin.gateway.json_messages import read_message
from moulin.gateway.live_audio import ContainerSent, Samples
from moulin.gateway.live_steps import Event, Finish, Forget, Hear, Step
from moulin.gateway.live_timeline import Timeline
from moulin.gateway.stream_audio import StreamAudio
from moulin.live_transcript import Segment, StreamUpdate
from moulin.quoting import quoted

_MOST_MESSAGE_BYTES = 4096


@dataclass(frozen=True, slots=True, eq=False)
class HearChannel(Hear):
    """Audio of one channel, which has a stream of its own on Triton."""

    channel: int = 0


@dataclass(slots=True)
class _Channel:
    """What is known of a channel; times in seconds of all its audio."""

    number: int
    timeline: Timeline = field(default_factory=Timeline)
    shown: Segment | None = None
    speaks: bool = False
    final_sec: float = 0.0
    """The end of the last final result."""
    last_word_sec: float | None = None
    """The end of the last word, until an `UtteranceEnd` has followed it."""


@dataclass(slots=True)
class DeepgramSession:
    """The session of one client. Its streams on Triton end after a while without audio, and when it says so."""

    wish: Wish
    model: str
    options: Mapping[str, Any]
    request_id: str
    sha256: Callable[[], str]
    """The digest of all bytes of audio so far, in hexadecimal."""
    warnings: Callable[[], Sequence[str]] = tuple
    """What of the audio could not be decoded, at its end."""
    _audio: StreamAudio = field(init=False)
    _channels: list[_Channel] = field(init=False)

    def __post_init__(self) -> None:
        raw = self.wish.raw
        assert raw is not None  # a container has been decoded
        self._audio = StreamAudio(lambda: raw, channels=self.wish.channels)
        self._channels = list(map(_Channel, range(self.wish.channels)))

    @property
    def is_resting(self) -> bool:
        return not any(channel.timeline.is_open for channel in self._channels)

    def opening(self) -> list[Step]:
        return []

    def receive(self, message: str | bytes) -> Iterator[Step]:
        if isinstance(message, str):
            try:
                yield from self._obey(message)
            except ApiError as error:
                yield self.refused(error)
            return
        try:
            if message:
                for number, piece in self._audio.accept(message):
                    yield self._hear(self._channels[number], piece)
            else:  # what clients sent before there was CloseStream
                yield from self._close()
        except MoulinError as error:
            yield from self._fail(error)

    def rest(self) -> Iterator[Step]:
        for channel in self._channels:
            yield from self._flush(channel, "rest")

    def heard(self, step: Hear, update: StreamUpdate) -> Iterator[Event]:
        assert isinstance(step, HearChannel)
        channel = self._channels[step.channel]
        update = channel.timeline.placed(update)
        for segment in update.segments:
            if segment.words and not channel.speaks:
                channel.speaks = True
                if self.wish.vad_events:
                    yield self._event("SpeechStarted", channel, timestamp=segment.start_sec)
            is_last = segment is update.segments[-1]
            if segment.is_final:
                yield self._final(channel, segment, update.duration_sec, step.end if is_last else None)
            elif self.wish.interim_results and segment != channel.shown:
                channel.shown = segment
                yield self._result(channel, segment, update.duration_sec)
            channel.last_word_sec = segment.end_sec if segment.words else channel.last_word_sec
        is_open = bool(update.segments) and not update.segments[-1].is_final
        if step.end == "commit" and not update.segments:
            yield self._final(channel, None, update.duration_sec, "commit")
        if not is_open:
            yield from self._utterance_end(channel, update.duration_sec)
        if step.end is not None:
            channel.timeline.end()

    def failed(self, error: Exception) -> Iterator[Step]:
        for channel in self._channels:
            channel.timeline.end()
        yield Forget()
        yield from self._fail(error)

    def refused(self, error: ApiError) -> Event:
        return Event({"type": "Error", "variant": error.code or "error", "description": str(error)})

    # The client's messages

    def _obey(self, message: str) -> Iterator[Step]:
        fields = _parsed(message)
        match fields.get("type"):
            case "KeepAlive":
                return
            case "Finalize":
                yield from self._finalize(fields.get("channel"))
            case "CloseStream":
                yield from self._close()
            case "Configure":
                yield Event(
                    {
                        "type": "ConfigureFailure",
                        "request_id": self.request_id,
                        "code": "CONFIGURE_KEYTERMS_NOT_SUPPORTED",
                        "description": "What a stream is asked for cannot change; open another with other parameters",
                    }
                )
            case kind:
                known = "KeepAlive, Finalize or CloseStream"
                raise ApiError(400, f"Expected a message of type {known}, got {quoted(kind)}", code="SchemaError")

    def _finalize(self, number: Any) -> Iterator[Step]:
        """Close the open utterance, of one channel or of all, and go on."""
        numbers = range(len(self._channels))
        if number is not None and (type(number) is not int or number not in numbers):
            raise ApiError(
                400, f"Expected a channel of 0 to {len(numbers) - 1}, got {quoted(number)}", code="SchemaError"
            )
        for channel in self._channels if number is None else [self._channels[number]]:
            steps = list(self._flush(channel, "commit"))
            yield from steps or [self._final(channel, None, channel.timeline.sent_sec, "commit")]

    def _close(self) -> Iterator[Step]:
        yield from self.rest()
        found = metadata(
            self.request_id,
            self.model,
            duration_sec=self._audio.received_sec,
            channels=len(self._channels),
            sha256=self.sha256(),
        )
        warnings = {"warnings": said} if (said := [*self.warnings(), *self._audio.warnings()]) else {}
        yield Event({"type": "Metadata", **found, **warnings})
        yield Finish()

    # Steps and events

    def _flush(self, channel: _Channel, end: Literal["commit", "rest"]) -> Iterator[Step]:
        """The rest of what has come of a channel, if anything has; ends its stream on Triton."""
        if channel.timeline.is_open or not self._audio.is_empty(channel.number):
            rest = self._audio.flush(channel.number)
            if rest is not None:
                yield self._hear(channel, rest, end)

    def _hear(self, channel: _Channel, samples: Samples, end: Literal["commit", "rest"] | None = None) -> HearChannel:
        channel.timeline.send(len(samples))
        return HearChannel(samples, self.model, self.options, end, channel.number)

    def _final(
        self, channel: _Channel, segment: Segment | None, until_sec: float, end: Literal["commit", "rest"] | None
    ) -> Event:
        paused = end is not None or (segment is not None and segment.ends_in_pause)
        from_finalize = end == "commit"
        speech_final = paused and (self.wish.speech_final or from_finalize)
        channel.speaks = channel.speaks and not speech_final
        event = self._result(
            channel, segment, until_sec, is_final=True, speech_final=speech_final, from_finalize=from_finalize
        )
        channel.final_sec, channel.shown = until_sec, None
        return event

    def _result(
        self,
        channel: _Channel,
        segment: Segment | None,
        until_sec: float,
        *,
        is_final: bool = False,
        speech_final: bool = False,
        from_finalize: bool = False,
    ) -> Event:
        return Event(
            live_result(
                segment,
                (channel.number, len(self._channels)),
                channel.final_sec,
                until_sec,
                is_final=is_final,
                speech_final=speech_final,
                from_finalize=from_finalize,
                metadata={
                    "request_id": self.request_id,
                    "model_info": model_facts(self.model),
                    "model_uuid": model_uuid(self.model),
                },
            )
        )

    def _utterance_end(self, channel: _Channel, until_sec: float) -> Iterator[Event]:
        least, last = self.wish.utterance_end_sec, channel.last_word_sec
        if least is not None and last is not None and until_sec - last >= least:
            channel.last_word_sec = None
            yield self._event("UtteranceEnd", channel, last_word_end=last)

    def _event(self, kind: str, channel: _Channel, **fields: Any) -> Event:
        return Event({"type": kind, "channel": [channel.number, len(self._channels)], **fields})

    def _fail(self, error: Exception) -> Iterator[Step]:
        """Clients of Deepgram's open another connection when one is closed."""
        if isinstance(error, ContainerSent):
            error = AudioError(error.message, hint="leave out encoding and sample_rate for audio in a container")
        refusal = api_error(error)
        yield self.refused(refusal)
        yield Finish(refusal)


def closes_stream(message: str) -> bool:
    """Whether a message of the client's says that all audio has been sent."""
    try:
        return _parsed(message).get("type") == "CloseStream"
    except ApiError:
        return False


def _parsed(text: str) -> dict[str, Any]:
    return read_message(
        text,
        most_bytes=_MOST_MESSAGE_BYTES,
        not_json="SchemaError",
        no_object="SchemaError",
        hint="send audio as bytes",
    )
