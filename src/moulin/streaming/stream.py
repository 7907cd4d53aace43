"""All that is known of one stream."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from moulin.arrays import Floats
from moulin.decoding.found import Hypothesis
from moulin.decoding.search import SearchState
from moulin.streaming.options import StreamOptions


class Audio(Protocol):
    """What has been heard of a stream, and which windows that gives."""

    @property
    def num_samples(self) -> int:
        """Of audio so far, without the silence behind it."""

    @property
    def finished(self) -> bool:
        """Whether no more audio comes."""

    def accept(self, samples: Floats) -> None:
        """More audio: float32 [n], n may be 0; it must not be changed any more."""

    def finish(self, tail_samples: int) -> None:
        """No more audio comes: silence follows; see `WindowLayout.all_windows`."""

    def is_ready(self) -> bool:
        """Whether a whole window is there."""

    def discard(self) -> None:
        """The stream has no more windows, whatever audio is waiting. May be called while another thread takes one."""


@dataclass(slots=True, eq=False)
class Stream:
    """Its encoder states are in `slot` of the runner's; everything else is here."""

    slot: int
    options: StreamOptions
    windows: Audio
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
