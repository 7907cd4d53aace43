"""The result of recognition, in the same form in process, over Triton (`RESULT`) and in `--format json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Word:
    """One word, or one character of a script that is written without spaces.

    `start_sec` and `end_sec` are where its sound begins and ends, as far as the loudness of the audio tells: a
    transducer emits a token when it is certain of it, somewhere within. Words never overlap, and end with the audio at
    the latest.
    `confidence` in (0, 1] is the geometric mean of the tokens' probabilities.
    """

    word: str
    start_sec: float
    end_sec: float
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: word, start_sec, end_sec, confidence; channel and track where the word has them."""
        # Written out, for live updates have the words of every open segment: a third of the time of `asdict`.
        return {
            "word": self.word,
            "start_sec": self.start_sec,
            "end_sec": self.end_sec,
            "confidence": self.confidence,
            **place_of(self),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Word:
        """The inverse of `to_dict`. Unknown keys are ignored, so that an old client reads a newer server."""
        values = (fields["word"], fields["start_sec"], fields["end_sec"], fields["confidence"])
        if "channel" in fields or "track" in fields:
            return PlacedWord(*values, fields.get("channel"), fields.get("track"))
        return Word(*values)


@dataclass(frozen=True, slots=True)
class PlacedWord(Word):
    """A word of a recording whose channels or tracks are transcribed one by one; both count from 1."""

    channel: int | None
    track: int | None


def place_of(word: Word) -> dict[str, int]:
    """The channel and track of a word, where it has them, as JSON-ready fields."""
    if not isinstance(word, PlacedWord):
        return {}
    places = {"channel": word.channel, "track": word.track}
    return {name: number for name, number in places.items() if number is not None}


@dataclass(frozen=True, slots=True)
class Transcript:
    """The words in `duration_sec` seconds of audio; empty text without speech.

    `warnings`: what of the recording is missing or was chosen, a sentence each.
    """

    text: str
    words: tuple[Word, ...]
    duration_sec: float
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: text, words (word, start_sec, end_sec, confidence), duration_sec, and warnings if any."""
        words = [word.to_dict() for word in self.words]
        fields: dict[str, Any] = {"text": self.text, "words": words, "duration_sec": self.duration_sec}
        return {**fields, "warnings": list(self.warnings)} if self.warnings else fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Transcript:
        """The inverse of `to_dict`. Unknown keys are ignored, so that an old client reads a newer server."""
        words = tuple(map(Word.from_dict, fields.get("words", ())))
        return cls(fields["text"], words, fields["duration_sec"], tuple(fields.get("warnings", ())))
