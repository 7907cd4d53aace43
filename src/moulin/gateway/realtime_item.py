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
    """Text that continues the text sent before, spaces included, and its words. May be empty."""

    text: str
    words: tuple[Word, ...]


@dataclass(slots=True)
class Item:
    """The text of one turn: consecutive segments of the recogniser.

    A delta cannot be corrected, so the last word of an open segment is held back: it may be incomplete, and moves into
    the next segment where this one has become too long. It is sent when another word follows or a pause closes the
    segment. Greedy search never changes the words before it; where modified beam search does, the deltas stay wrong,
    and `text`, sent at the end, is right.
    """

    id: str
    previous_id: str | None
    start_sec: float
    text: str = ""
    """The text of the closed segments."""
    words: list[Word] = field(default_factory=list)
    _sent: int = 0
    """The number of words of the open segment sent so far."""

    def close_segment(self, segment: Segment) -> Delta:
        """The delta of a segment that has become final."""
        delta = self._unsent(segment, len(segment.words))
        self.text = join_texts(self.text, segment.text)
        self.words += segment.words
        self._sent = 0
        return delta

    def grow(self, segment: Segment) -> Delta:
        """The delta of the open segment."""
        delta = self._unsent(segment, len(segment.words) - 1)
        self._sent = max(self._sent, len(segment.words) - 1)
        return delta

    def _unsent(self, segment: Segment, count: int) -> Delta:
        """The unsent ones of the first `count` words."""
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
    """The end of each word in the segment's text, which has the spaces between words."""
    ends, end = [], 0
    for word in segment.words:
        end = segment.text.index(word.word, end) + len(word.word)
        ends.append(end)
    return ends


def log_probs(words: Sequence[Word]) -> list[dict[str, Any]]:
    """The words' confidences in OpenAI's form, with one token for each word."""
    return [
        {"token": word.word, "bytes": list(word.word.encode()), "logprob": math.log(word.confidence)} for word in words
    ]
