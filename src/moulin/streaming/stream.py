"""All that is known of one stream."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from moulin.decoding.network import Hypothesis
from moulin.decoding.search import SearchState
from moulin.streaming.options import StreamOptions
from moulin.streaming.windows import FeatureWindows


@dataclass(slots=True, eq=False)
class Stream:
    """Its encoder states are in `slot` of the runner's; everything else is here."""

    slot: int
    options: StreamOptions
    windows: FeatureWindows
    search: SearchState
    segment_start_frame: int = 0
    """Where the open segment begins, in encoder frames from the beginning of the stream."""
    num_closed: int = 0
    closed_text: str = ""
    """What all closed segments say."""
    unreported: deque[Hypothesis] = field(default_factory=deque)
    """Closed segments that no update has carried yet."""
    endpoint: bool = False
    """Whether one has been found since the last update."""

    @property
    def ended(self) -> bool:
        """Whether all there will ever be has been decoded."""
        return self.windows.finished and not self.windows.is_ready()
