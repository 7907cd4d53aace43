"""How many requests may be with the model at once: as many as it answers soon.

What has been sent to the model cannot be overtaken. On two cores 32 pieces of 30 s are five seconds of work, for which
the next caller would wait; on a GPU they are some milliseconds. So the limit is found as TCP finds its window: it
grows while answers come soon and falls while they come late.
"""

from __future__ import annotations

_SOON_SEC = 0.4
_LATE_SEC = 0.8


class AdaptiveLimit:
    """A limit of requests at once, between two bounds."""

    def __init__(self, *, at_least: int, at_most: int) -> None:
        self._at_least, self._at_most = at_least, max(at_least, at_most)
        self._limit = float(at_least)

    @property
    def value(self) -> int:
        """The limit."""
        return int(self._limit)

    def after(self, answered_sec: float, *, full: bool) -> int:
        """The limit after an answer that took so long. `full`: whether the limit was reached when the request was
        sent; only then does a quick answer say that there may be more."""
        if answered_sec > _LATE_SEC:
            self._limit -= 0.5  # half of the limit while each of those under way is answered once
        elif answered_sec < _SOON_SEC and full:
            self._limit += 1.0
        self._limit = min(max(self._limit, self._at_least), self._at_most)
        return self.value
