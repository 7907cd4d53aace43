"""What is kept of one stream beside the arrays that have a row for each slot."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from moulin.decoding.found import Hypothesis
from moulin.streaming.options import StreamOptions


@dataclass(slots=True, eq=False)
class Stream:
    """Audio, encoder states, search and open segment are in `slot` of whatever keeps them; see `StreamRecognizer`."""

    slot: int
    options: StreamOptions
    num_closed: int = 0
    """Closed segments."""
    closed_text: str = ""
    """The text of all closed segments."""
    unreported: deque[Hypothesis] = field(default_factory=deque)
    """Closed segments that no update has carried yet."""
    endpoint: bool = False
    """Whether one has been found since the last update."""
    spelt: tuple[int, int, str] = (0, 0, "")
    """The text when there were so many closed segments and open tokens."""
