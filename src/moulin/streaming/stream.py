"""The record of one stream, beside the arrays that have a row for each slot."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from moulin.decoding.found import Hypothesis
from moulin.streaming.options import StreamOptions
from moulin.transcript import Alternative, Word


@dataclass(frozen=True, slots=True)
class ClosedSegment:
    """A closed segment's tokens and words; `ends_in_pause` and `alternatives` as in `live_transcript.Segment`."""

    hypothesis: Hypothesis
    words: tuple[Word, ...]
    ends_in_pause: bool
    alternatives: tuple[Alternative, ...] = ()


@dataclass(slots=True, eq=False)
class Stream:
    """An open stream. Its audio, encoder states, search and open segment are in arrays by slot: see
    `StreamRecognizer`."""

    slot: int
    options: StreamOptions
    num_closed: int = 0
    """Closed segments."""
    closed_text: str = ""
    """The text of all closed segments."""
    unreported: deque[ClosedSegment] = field(default_factory=deque)
    """Closed segments that no update has carried yet."""
    said_until_sec: float = 0.0
    """The end of the last word of all closed segments."""
    endpoint: bool = False
    """Whether an endpoint has been found since the last update."""
    spelt: tuple[int, int, str] = (0, 0, "")
    """Numbers of closed segments and of open tokens, and the text at that time."""
