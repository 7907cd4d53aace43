"""What is known of a stream while it goes on, the same in process, over Triton (`RESULT`) and in `--format json`.

Speech is cut into segments at endpoints (pauses, mostly). The open segment's text may still change; a closed one is
final. Every update carries only the segments that it closes and the open one, so that an update of the third hour is no
longer than one of the first minute. `LiveTranscript` puts them together again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from moulin.spacing import join_texts
from moulin.transcript import Transcript, Word


@dataclass(frozen=True, slots=True)
class Segment:
    """Speech between two endpoints. `number` counts the stream's segments from 0; only those with words count."""

    number: int
    text: str
    words: tuple[Word, ...]
    is_final: bool

    @property
    def start_sec(self) -> float:
        """When its first word was recognised, from the beginning of the stream."""
        return self.words[0].start_sec if self.words else 0.0

    @property
    def end_sec(self) -> float:
        return self.words[-1].end_sec if self.words else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "text": self.text,
            "start_sec": self.start_sec,
            "end_sec": self.end_sec,
            "is_final": self.is_final,
            "words": [asdict(word) for word in self.words],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Segment:
        words = tuple(map(Word.from_dict, fields.get("words", ())))
        return cls(fields["number"], fields["text"], words, fields["is_final"])


@dataclass(frozen=True, slots=True)
class StreamUpdate:
    """What one piece of audio has changed.

    `segments` are those that it closed, then the open one, unless that is empty. `endpoint` says that the speaker has
    paused (or spoken for as long as a segment may last), `is_final` that the stream has ended and all is said.
    `duration_sec` is all the audio of the stream so far.
    """

    segments: tuple[Segment, ...]
    endpoint: bool
    is_final: bool
    duration_sec: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "segments": [segment.to_dict() for segment in self.segments],
            "endpoint": self.endpoint,
            "is_final": self.is_final,
            "duration_sec": self.duration_sec,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> StreamUpdate:
        """The inverse of `to_dict`. Unknown keys are ignored, so that an old client reads a newer server."""
        return cls(
            tuple(Segment.from_dict(segment) for segment in fields["segments"]),
            fields["endpoint"],
            fields["is_final"],
            fields["duration_sec"],
        )


@dataclass(slots=True)
class LiveTranscript:
    """A stream's transcript so far, from its updates."""

    final: list[Segment] = field(default_factory=list)
    open: Segment | None = None
    """The segment that is still being spoken."""
    duration_sec: float = 0.0

    def apply(self, update: StreamUpdate) -> None:
        self.open = None
        for segment in update.segments:
            if segment.is_final:
                self.final.append(segment)
            else:
                self.open = segment
        self.duration_sec = update.duration_sec

    @property
    def text(self) -> str:
        """Everything from the beginning, the open segment included."""
        text = ""
        for segment in self._segments():
            text = join_texts(text, segment.text)
        return text

    def transcript(self) -> Transcript:
        """Everything from the beginning, as if it had been one recording."""
        words = tuple(word for segment in self._segments() for word in segment.words)
        return Transcript(self.text, words, self.duration_sec)

    def _segments(self) -> Iterator[Segment]:
        yield from self.final
        if self.open is not None:
            yield self.open
