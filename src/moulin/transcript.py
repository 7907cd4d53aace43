"""The result of recognition, in the same form in process, over Triton (`RESULT`) and in `--format json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        fields: dict[str, Any] = {
            "word": self.word,
            "start_sec": self.start_sec,
            "end_sec": self.end_sec,
            "confidence": self.confidence,
        }
        return fields if type(self) is Word else {**fields, **place_of(self)}

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
class Alternative:
    """A text that some audio may say.

    `score` is the natural logarithm of its probability, of all paths through the audio's frames that the search kept
    for it; with what hotwords and a language model add.
    """

    text: str
    words: tuple[Word, ...]
    score: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: text, score, words."""
        return {"text": self.text, "score": self.score, "words": [word.to_dict() for word in self.words]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Alternative:
        """The inverse of `to_dict`."""
        return cls(fields["text"], tuple(map(Word.from_dict, fields["words"])), fields["score"])


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a recording that was heard by itself: a piece between two cuts, or a segment of a stream."""

    alternatives: tuple[Alternative, ...]
    """The texts that it may say, the best first."""

    @property
    def start_sec(self) -> float:
        """The beginning of the first word of all alternatives, 0 without words."""
        return min((one.words[0].start_sec for one in self.alternatives if one.words), default=0.0)

    @property
    def end_sec(self) -> float:
        """The end of the last word of all alternatives, 0 without words."""
        return max((one.words[-1].end_sec for one in self.alternatives if one.words), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: start_sec, end_sec, alternatives."""
        return {"start_sec": self.start_sec, "end_sec": self.end_sec, **alternatives_of(self.alternatives)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Part:
        """The inverse of `to_dict`."""
        return cls(alternatives_in(fields))


def alternatives_of(alternatives: Sequence[Alternative]) -> dict[str, Any]:
    """The field `alternatives` of JSON, where there are some."""
    return {"alternatives": [one.to_dict() for one in alternatives]} if alternatives else {}


def alternatives_in(fields: Mapping[str, Any]) -> tuple[Alternative, ...]:
    """The inverse of `alternatives_of`."""
    return tuple(map(Alternative.from_dict, fields.get("alternatives", ())))


@dataclass(frozen=True, slots=True)
class Transcript:
    """The words in `duration_sec` seconds of audio; empty text without speech.

    `warnings`: what of the recording is missing or was chosen, a sentence each. Where several texts were asked for
    (`nbest`), `alternatives` has them, the first of which is this one; of a recording that was heard in parts, `parts`
    has those of each part instead, in the order of time.
    """

    text: str
    words: tuple[Word, ...]
    duration_sec: float
    warnings: tuple[str, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    parts: tuple[Part, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: text, words (word, start_sec, end_sec, confidence), duration_sec, and what there is of
        warnings, alternatives and parts."""
        words = [word.to_dict() for word in self.words]
        warnings = {"warnings": list(self.warnings)} if self.warnings else {}
        fields = {"text": self.text, "words": words, "duration_sec": self.duration_sec, **warnings}
        return {**fields, **self.others_to_dict()}

    def others_to_dict(self) -> dict[str, Any]:
        """JSON-ready: `alternatives` and `parts`, where there are any."""
        parts = {"parts": [part.to_dict() for part in self.parts]} if self.parts else {}
        return {**alternatives_of(self.alternatives), **parts}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Transcript:
        """The inverse of `to_dict`. Unknown keys are ignored, so that an old client reads a newer server."""
        words = tuple(map(Word.from_dict, fields.get("words", ())))
        parts = tuple(map(Part.from_dict, fields.get("parts", ())))
        warnings = tuple(fields.get("warnings", ()))
        return cls(fields["text"], words, fields["duration_sec"], warnings, alternatives_in(fields), parts)
