"""A `StreamingRecognize` without a connection, a server or a clock: from audio to steps (`live_steps.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from moulin.errors import AudioError, MoulinError
from moulin.gateway.api_error import ApiError, api_error
from moulin.gateway.live_audio import ContainerSent, Samples
from moulin.gateway.live_steps import Event, Finish, Hear, Step
from moulin.gateway.live_timeline import Timeline
from moulin.gateway.riva.results import live_result
from moulin.gateway.riva.wish import Wish
from moulin.gateway.stream_audio import StreamAudio
from moulin.live_transcript import Segment, StreamUpdate

_NO_FILES = "send a recording to Recognize, or LINEAR_PCM"

END = "end"
"""The message for the end of the client's audio; all others are audio."""


@dataclass(slots=True)
class RivaSession:
    """Events are `{"result": StreamingRecognitionResult}` or `{"error": ApiError}`, after which nothing comes."""

    wish: Wish
    interim_results: bool
    model: str
    options: Mapping[str, Any]
    _audio: StreamAudio = field(init=False)
    _timeline: Timeline = field(default_factory=Timeline)
    _shown: Segment | None = None

    def __post_init__(self) -> None:
        self._audio = StreamAudio(lambda: self.wish.raw)

    @property
    def is_resting(self) -> bool:
        return not self._timeline.is_open

    def opening(self) -> list[Step]:
        return []

    def receive(self, message: str | bytes) -> Iterator[Step]:
        try:
            if isinstance(message, bytes):
                for _, piece in self._audio.accept(message):
                    yield self._hear(piece)
            else:
                yield from self.rest()
                yield Finish()
        except ContainerSent as error:
            yield from self._failed(api_error(AudioError(error.message, hint=_NO_FILES)))
        except MoulinError as error:
            yield from self._failed(api_error(error))

    def rest(self) -> Iterator[Step]:
        if self.is_resting and self._audio.is_empty():
            return
        try:
            rest = self._audio.flush()
        except MoulinError as error:
            yield from self._failed(api_error(error))
            return
        if rest is not None:
            yield self._hear(rest, last=True)

    def heard(self, step: Hear, update: StreamUpdate) -> Iterator[Step]:
        update = self._timeline.placed(update)
        for segment in update.segments:
            if segment.is_final or (self.interim_results and segment != self._shown):
                self._shown = segment
                yield Event({"result": live_result(segment, self.wish, update.duration_sec)})
        if step.end is not None:
            self._timeline.end()

    def failed(self, error: Exception) -> Iterator[Step]:
        self._timeline.end()
        yield from self._failed(api_error(error))

    def refused(self, error: ApiError) -> Event:
        return Event({"error": error})

    def _failed(self, error: ApiError) -> Iterator[Step]:
        yield self.refused(error)
        yield Finish(error)

    def _hear(self, piece: Samples, *, last: bool = False) -> Hear:
        self._timeline.send(len(piece))
        return Hear(piece, self.model, self.options, "rest" if last else None)
