"""Pauses before restarts: none for what ran well, longer and longer ones for what fails again and again."""

from __future__ import annotations

SETTLED_SEC = 10.0
"""A process that ran for so long ran well: its end is news, and not the same failure again."""
_LONGEST_SEC = 30.0


class Backoff:
    """Counts failures in a row; no clock."""

    def __init__(self, longest_sec: float = _LONGEST_SEC) -> None:
        self._longest_sec = longest_sec
        self._in_a_row = 0

    def pause_sec(self, ran_sec: float, first_sec: float) -> float:
        """The pause after a failure of a process that had run for `ran_sec`, ready: 0, or `first_sec` doubled again
        and again."""
        if ran_sec >= SETTLED_SEC:
            self._in_a_row = 0
            return 0.0
        self._in_a_row += 1
        return min(self._longest_sec, first_sec * 2.0 ** min(self._in_a_row - 1, 16))
