"""How far a job is: counts, rate and the time that is left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import pyarrow.compute as pc

_RATE_OVER_SEC = 60.0


@dataclass(frozen=True, slots=True)
class State:
    """A job at one moment. Rates are of the last minute, else since the first transcript."""

    total: int
    """Recordings of this run and shard, those that were done before among them."""
    done: int
    """Those with a transcript or an error, in a part or soon in one."""
    failed: int
    audio_hours: float
    """Transcribed by this run."""
    elapsed_sec: float
    parts: int
    """Written by this run."""
    recordings_a_sec: float
    times_real_time: float
    left_sec: float | None
    """At this rate, taking the recordings to come for as long as those before; None where nothing is done yet."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}


class Written(Protocol):
    """Where transcripts go, with a count of parts."""

    written: int

    def add(self, transcribed: Any) -> None: ...
    def write_if_old(self) -> None: ...
    def write(self) -> None: ...


class Counted:
    """An output that counts what goes through."""

    def __init__(
        self,
        output: Written,
        *,
        total: int,
        done: int,
        failed: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`done` and `failed` of the `total` recordings were so before."""
        self._output, self._clock = output, clock
        self.total, self.done, self.failed = total, done, failed
        self._seconds = 0.0
        self._begun = clock()
        self._has_begun = False
        self._marks: deque[tuple[float, int, float]] = deque([(self._begun, done, 0.0)])

    def add(self, transcribed: Any) -> None:
        self._output.add(transcribed)
        rows, seconds = transcribed.num_rows, pc.sum(transcribed.column("duration_sec")).as_py() or 0.0
        errors = rows - transcribed.column("error").null_count
        self.done += rows
        self.failed += errors
        self._seconds += seconds
        if not self._has_begun:  # start-up is no part of the rate
            self._has_begun = True
            self._marks = deque([(self._clock(), self.done, self._seconds)])

    def write_if_old(self) -> None:
        self._output.write_if_old()

    def write(self) -> None:
        self._output.write()

    def state(self) -> State:
        """The state now."""
        now = self._clock()
        while len(self._marks) > 1 and now - self._marks[1][0] > _RATE_OVER_SEC:
            self._marks.popleft()
        if now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, self.done, self._seconds))
        since, done, seconds = self._marks[0]
        elapsed = max(now - since, 1e-3)
        rate = max(self.done - done, 0) / elapsed
        return State(
            total=self.total,
            done=self.done,
            failed=self.failed,
            audio_hours=self._seconds / 3600,
            elapsed_sec=now - self._begun,
            parts=self._output.written,
            recordings_a_sec=rate,
            times_real_time=max(self._seconds - seconds, 0.0) / elapsed,
            left_sec=(self.total - self.done) / rate if rate else None,
        )
