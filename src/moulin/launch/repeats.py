"""A limit on how often the same line is written: a fault that repeats must not fill the disk."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

_MOST_KEYS = 1000


class Repeats:
    """Admits `burst` lines with the same key in `period_sec`, and counts the others."""

    def __init__(
        self, burst: int = 20, period_sec: float = 10.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst, self._period_sec, self._clock = burst, period_sec, clock
        self._seen: OrderedDict[Hashable, list[float]] = OrderedDict()
        """For each key the beginning of its period and the lines in it."""

    def admit(self, key: Hashable) -> int | None:
        """None for a line to leave out; else how many with this key were left out since the last one shown."""
        now = self._clock()
        begin, count = self._seen.pop(key, (now, 0))
        left_out = 0
        if now - begin >= self._period_sec:
            left_out = max(0, int(count) - self._burst)
            begin, count = now, 0
        self._seen[key] = [begin, count + 1]
        if len(self._seen) > _MOST_KEYS:
            self._seen.popitem(last=False)
        return left_out if count < self._burst else None
