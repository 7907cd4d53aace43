"""One item of a realtime session: a turn's text, sent in deltas that are never taken back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from moulin.live_transcript import Segment
from moulin.spacing import join_texts
from moulin.transcript import Word


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that continues what was sent, spaces included, and its words. Empty where there is nothing to say."""

    text: str
    words: tuple[Word, ...]


@dataclass(slots=True)
class Item:
    """What is said in one turn: the recogniser's segments one after another.

    A delta cannot be corrected, so the last word of a segment that goes on is held back: it may be but half said, and
    where a segment has become too long it moves into the next. It is sent when another word follows or a pause closes
    the segment. Greedy search never changes what is before it; where modified beam search does, the deltas stay as
    they are and `text`, sent at the end, is right.
    """

    id: str
    previous_id: str | None
    start_sec: float
    text: str = ""
    """Of the segments that are closed."""
    words: list[Word] = field(default_factory=list)
    _sent: int = 0
    """Words of the open segment that were sent."""

    def close_segment(self, segment: Segment) -> Delta:
        """A segment that has become final."""
        delta = self._unsent(segment, len(segment.words))
        self.text = join_texts(self.text, segment.text)
        self.words += segment.words
        self._sent = 0
        return delta

    def grow(self, segment: Segment) -> Delta:
        """The segment that goes on."""
        delta = self._unsent(segment, len(segment.words) - 1)
        self._sent = max(self._sent, len(segment.words) - 1)
        return delta

    def _unsent(self, segment: Segment, count: int) -> Delta:
        """Of the first `count` words those that were not sent."""
        if count <= self._sent:
            return Delta("", ())
        ends = _word_ends(segment)
        begin = ends[self._sent - 1] if self._sent else 0
        end = len(segment.text) if count == len(segment.words) else ends[count - 1]
        text = segment.text[begin:end]
        if not self._sent and self.text:
            text = join_texts(self.text, text)[len(self.text) :]
        return Delta(text, segment.words[self._sent : count])


def _word_ends(segment: Segment) -> list[int]:
    """Where each word ends in the segment's text, which alone knows where spaces belong."""
    ends, end = [], 0
    for word in segment.words:
        end = segment.text.index(word.word, end) + len(word.word)
        ends.append(end)
    return ends


def log_probs(words: Sequence[Word]) -> list[dict[str, Any]]:
    """The words' confidences in OpenAI's form. A word is one token here."""
    return [
        {"token": word.word, "bytes": list(word.word.encode()), "logprob": math.log(word.confidence)} for word in words
    ]
