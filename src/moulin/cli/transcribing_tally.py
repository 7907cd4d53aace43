"""The closing line of `moulin transcribe` over several recordings: how much, how fast, and what failed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from moulin.cli.bulk_progress import duration
from moulin.errors import MoulinError
from moulin.outcome import Outcome

_MOST_NAMED = 3


@dataclass(slots=True)
class Tally:
    """Counts outcomes; its clock begins when it is made."""

    files: int = 0
    audio_sec: float = 0.0
    failed: list[str] = field(default_factory=list)
    """Names of the recordings that could not be transcribed."""
    _started: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        self.files += 1
        if isinstance(outcome.result, MoulinError):
            self.failed.append(outcome.source.name)
        else:
            self.audio_sec += outcome.result.duration_sec

    def line(self) -> str:
        """For example: 201 files, 27 min of audio in 87 s, 19 times real time; 1 failed: calls/7.wav."""
        return self.line_after(time.monotonic() - self._started)

    def line_after(self, elapsed_sec: float) -> str:
        """`line` with the time that has gone by."""
        took = f"{elapsed_sec:.1f} s" if elapsed_sec < 10 else duration(elapsed_sec)
        speed = self.audio_sec / max(elapsed_sec, 1e-9)
        done = f"{self.files} files, {duration(self.audio_sec)} of audio in {took}, {speed:,.3g} times real time"
        if not self.failed:
            return done
        named = ", ".join(self.failed[:_MOST_NAMED])
        more = f" and {len(self.failed) - _MOST_NAMED} more" if len(self.failed) > _MOST_NAMED else ""
        return f"{done}; {len(self.failed)} failed: {named}{more}"
