"""The seam between load generators and targets: a target opens a stream and is sent the pieces of a recording.

A whole recording is a stream of one piece. Nothing here waits: later events go into the stream's record, so that a load
generator of one thread drives thousands of streams.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from moulin.evaluate.streaming_clips import Clip


@dataclass(slots=True)
class Record:
    """The events of one stream: seconds of the event loop's clock for each piece, NaN for events yet to come."""

    clip: Clip
    due: list[float] = field(init=False)
    sent: list[float] = field(init=False)
    replied: list[float] = field(init=False)
    measured: tuple[bool, ...] = field(init=False)
    """The clip's `measured`, unless the target answers no pieces."""
    begin: float = math.nan
    """The time of the first sample."""
    partials: list[tuple[float, str]] = field(default_factory=list)
    """(time, whole text so far), each different from the one before."""
    text: str | None = None
    """The final text, once the stream has ended well."""
    failure: str | None = None
    on_end: Callable[[], None] | None = None
    """Called once when the text or a failure is there."""

    def __post_init__(self) -> None:
        self.due, self.sent, self.replied = ([math.nan] * len(self.clip.chunks) for _ in range(3))
        self.measured = self.clip.measured

    @property
    def ended(self) -> bool:
        return self.text is not None or self.failure is not None

    def heard(self, text: str, now: float) -> None:
        """A partial result: the whole text so far."""
        if text != (self.partials[-1][1] if self.partials else ""):
            self.partials.append((now, text))

    def finish(self, text: str) -> None:
        """The final result; what comes after an end is ignored."""
        if not self.ended:
            self.text = text
            self._end()

    def fail(self, why: str) -> None:
        if not self.ended:
            self.failure = why
            self._end()

    def _end(self) -> None:
        if self.on_end:
            self.on_end()


class Stream(Protocol):
    """One stream of a target. Its events go into the record that it was opened with."""

    def send(self, index: int) -> None:
        """Send the clip's piece `index`, behind those before it; return at once. The last one ends the stream."""

    def abandon(self) -> None:
        """Free the target's side, if the stream has not ended."""


class Connection(Protocol):
    """A target that is running, for one event loop."""

    @property
    def num_requests(self) -> int:
        """Requests sent so far, counted here: the server's own count must agree."""

    def open(self, record: Record) -> Stream:
        """Open a stream for `record.clip`; return at once, connected or not."""

    async def close(self) -> None: ...
