"""Due chunks of streams in real time: which chunks are due and not in a step yet."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_POLL_SEC = 1e-4


@dataclass(frozen=True, slots=True)
class Due:
    """Streams `first` to `last` - 1, whose chunks number `round` were due at `sec` [n]."""

    round: int
    first: int
    last: int
    sec: NDArray[np.float64]


class DueChunks:
    """The queue of due chunks of all streams. Safe to use from several threads."""

    def __init__(self, phases: NDArray[np.float64], chunk_sec: float, max_batch: int) -> None:
        """`phases` [streams] are seconds within a chunk, sorted."""
        self._phases, self._chunk_sec, self._max_batch = phases, chunk_sec, max_batch
        self._next = 0  # chunk, in the order in which they are due
        self._under_way: set[int] = set()
        self._lock = threading.Lock()

    def take(self, now: float) -> Due | None:
        """All streams that are due and not in a step, at most `max_batch`, of one round; None where there are none."""
        count = len(self._phases)
        with self._lock:
            over, rest = divmod(now, self._chunk_sec)
            end = int(over) * count + int(np.searchsorted(self._phases, rest, "right"))
            end = min(end, min(self._under_way, default=self._next) + count, self._next + self._max_batch)
            number, first = divmod(self._next, count)
            last = min(first + end - self._next, count)
            if last <= first:
                return None
            self._under_way.add(self._next)
            self._next += last - first
        return Due(number, first, last, number * self._chunk_sec + self._phases[first:last])

    def have_stepped(self, due: Due) -> None:
        with self._lock:
            self._under_way.remove(due.round * len(self._phases) + due.first)

    def wait_sec(self, now: float) -> float:
        """Seconds until the next stream may be due."""
        number, first = divmod(self._next, len(self._phases))
        return max(_POLL_SEC, number * self._chunk_sec + float(self._phases[first]) - now)
