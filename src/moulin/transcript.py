"""The result of recognition, in the same form in process, over Triton (`RESULT`) and in `--format json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Word:
        """The inverse of `asdict`. Unknown keys are ignored, so that an old client reads a newer server."""
        return cls(fields["word"], fields["start_sec"], fields["end_sec"], fields["confidence"])


@dataclass(frozen=True, slots=True)
class Transcript:
    """The words in `duration_sec` seconds of audio; empty text without speech."""

    text: str
    words: tuple[Word, ...]
    duration_sec: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: text, words (word, start_sec, end_sec, confidence), duration_sec."""
        return asdict(self) | {"words": [asdict(word) for word in self.words]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Transcript:
        """The inverse of `to_dict`. Unknown keys are ignored, so that an old client reads a newer server."""
        return cls(fields["text"], tuple(map(Word.from_dict, fields.get("words", ()))), fields["duration_sec"])
