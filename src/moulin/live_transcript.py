"""The transcript of an open stream, in the same form in process, over Triton (`RESULT`) and in `--format json`.

Speech is cut into segments at endpoints (mostly pauses). The open segment's text may still change; a closed one is
final. Every update carries only the segments that it closes and the open one, so that updates do not grow with the
stream. `LiveTranscript` joins them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from moulin.spacing import join_texts
from moulin.transcript import Alternative, Part, Transcript, Word, alternatives_in, alternatives_of


@dataclass(frozen=True, slots=True)
class Segment:
    """Speech between two endpoints. `number` counts the stream's segments with words, from 0.

    `ends_in_pause`: the speaker paused behind its last word. Else it is open, has become too long, or ends with the
    stream.
    """

    number: int
    text: str
    words: tuple[Word, ...]
    is_final: bool
    ends_in_pause: bool = False
    alternatives: tuple[Alternative, ...] = ()
    """The texts that a final segment may say, the best first, where several were asked for."""

    @property
    def start_sec(self) -> float:
        """The time of its first word, from the beginning of the stream."""
        return self.words[0].start_sec if self.words else 0.0

    @property
    def end_sec(self) -> float:
        return self.words[-1].end_sec if self.words else 0.0

    def placed(self, first_number: int, start_sec: float) -> Segment:
        """The segment of a stream that begins at `start_sec` of a longer one, with its number and times there."""
        if not first_number and not start_sec:
            return self  # as in most streams: live updates have the words of every open segment
        others = tuple(replace(other, words=_placed(other.words, start_sec)) for other in self.alternatives)
        number, words = self.number + first_number, _placed(self.words, start_sec)
        return replace(self, number=number, words=words, alternatives=others)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; `ends_in_pause` is there only where it is true."""
        return {
            "number": self.number,
            "text": self.text,
            "start_sec": self.start_sec,
            "end_sec": self.end_sec,
            "is_final": self.is_final,
            **({"ends_in_pause": True} if self.ends_in_pause else {}),
            "words": [word.to_dict() for word in self.words],
            **alternatives_of(self.alternatives),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Segment:
        words = tuple(map(Word.from_dict, fields.get("words", ())))
        pause = fields.get("ends_in_pause", False)
        return cls(fields["number"], fields["text"], words, fields["is_final"], pause, alternatives_in(fields))


@dataclass(frozen=True, slots=True)
class StreamUpdate:
    """The changes caused by one piece of audio.

    `segments` are those that it closed, then the open one, unless that is empty. `endpoint`: the speaker has paused, or
    spoken for the longest time that a segment may last. `is_final`: the stream has ended and the transcript is
    complete. `duration_sec` is the duration of all audio so far.
    """

    segments: tuple[Segment, ...]
    endpoint: bool
    is_final: bool
    duration_sec: float

    def placed(self, first_number: int, start_sec: float) -> StreamUpdate:
        """The update of a stream that begins at `start_sec` of a longer one, as one of that, in which `first_number` is
        the number of its first segment."""
        if not first_number and not start_sec:
            return self
        segments = tuple(segment.placed(first_number, start_sec) for segment in self.segments)
        return replace(self, segments=segments, duration_sec=round(self.duration_sec + start_sec, 3))

    def to_dict(self) -> dict[str, Any]:
        """The update as JSON-ready values."""
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
    """The segment that may still change."""
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
        """The text from the beginning, the open segment included."""
        text = ""
        for segment in self._segments():
            text = join_texts(text, segment.text)
        return text

    def transcript(self) -> Transcript:
        """All segments as the transcript of one recording."""
        words = tuple(word for segment in self._segments() for word in segment.words)
        parts = tuple(Part(segment.alternatives) for segment in self._segments() if segment.alternatives)
        alternatives = parts[0].alternatives if len(parts) == len(self.final) == 1 and self.open is None else ()
        return Transcript(
            self.text, words, self.duration_sec, alternatives=alternatives, parts=() if alternatives else parts
        )

    def _segments(self) -> Iterator[Segment]:
        yield from self.final
        if self.open is not None:
            yield self.open


def _placed(words: tuple[Word, ...], start_sec: float) -> tuple[Word, ...]:
    return tuple(_placed_word(word, start_sec) for word in words)


def _placed_word(word: Word, start_sec: float) -> Word:
    start, end = round(word.start_sec + start_sec, 3), round(word.end_sec + start_sec, 3)
    if type(word) is Word:  # `replace` takes six times as long, and updates have all words of the open segment
        return Word(word.word, start, end, word.confidence)
    return replace(word, start_sec=start, end_sec=end)
