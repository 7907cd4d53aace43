"""Places of decoded frames on a recording's time axis, by a container's time stamps."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

MAX_SILENCE_SEC = 60.0
"""A longer gap is skipped: times go on behind it, and no silence is made for it."""

MAX_GAPS_SEC = 100 * 3600.0
"""All gaps of a recording together, a weekend's pause among them. Time stamps that go beyond are wrong."""

_TOLERANCE_SEC = 0.06
"""Containers round time stamps, and clocks run a little apart. A smaller distance is no gap."""

_FIRST_TOLERANCE_SEC = 0.005
_SURE_SEC = 0.25
"""A jump that is a gap even where time stamps are uneven."""

_RESTART_SEC = 1.0
"""Time stamps that go back so far begin anew: pieces of a recording, one after another."""

_UNEVEN = 0.3
"""The share of frames that do not begin where the one before ended, from which time stamps are not trusted: with a
wrong rate in the header every frame seems to be followed by a gap."""

_MEMORY = 0.95
_ROUNDING_SEC = 0.002


@dataclass(frozen=True, slots=True)
class Skip:
    """A part of a recording for which there is no audio and no silence either: times go on `samples` later."""

    samples: int


class Timeline:
    """Finds the gaps between frames. No decoder is involved: time stamps in, seconds of silence out."""

    def __init__(self, zero_sec: float, pauses: Sequence[tuple[float, float]] = (), *, is_rough: bool = False) -> None:
        """`zero_sec` is the time stamp of the recording's beginning. `is_rough`: only long jumps are gaps.

        `pauses` are those that time stamps leave out: a time stamp where there is one, in their order, and its length.
        """
        self._expected_sec = zero_sec
        self._without_restart_sec: float | None = None
        """The time stamp to be expected if the last one that began anew was wrong."""
        self._pauses = deque(pauses)
        self._paused_sec = 0.0
        self._is_rough = is_rough
        self._drift_sec = 0.0
        """How far time stamps are ahead of the audio so far; negative where frames overlapped."""
        self._uneven = 0.0
        self._is_first = True
        self._gaps_sec = 0.0
        self.is_beyond = False
        """Whether a gap was left out because all together would be longer than MAX_GAPS_SEC."""

    def gap_before(self, start_sec: float | None, duration_sec: float) -> float:
        """Seconds without audio before a frame; 0 for almost all. `start_sec` is None for a frame without a time."""
        gap_sec = self._gap_before(start_sec, duration_sec)
        if self._gaps_sec + gap_sec > MAX_GAPS_SEC:
            self.is_beyond = True
            return 0.0
        self._gaps_sec += gap_sec
        return gap_sec

    def _gap_before(self, start_sec: float | None, duration_sec: float) -> float:
        if start_sec is None:
            start_sec = self._expected_sec
        else:
            start_sec += self._pauses_before(start_sec + duration_sec / 2)
        jump_sec = start_sec - self._expected_sec
        self._expected_sec = start_sec + duration_sec
        if self._is_first:
            self._is_first = False
            return jump_sec if jump_sec > _FIRST_TOLERANCE_SEC else 0.0
        is_uneven = abs(jump_sec) > _ROUNDING_SEC
        self._uneven = _MEMORY * self._uneven + (1 - _MEMORY) * is_uneven
        if self._without_restart_sec is not None:
            if abs(start_sec - self._without_restart_sec) < _RESTART_SEC:  # back on the clock of before
                jump_sec, self._without_restart_sec = start_sec - self._without_restart_sec, None
            else:
                self._without_restart_sec += duration_sec
        if jump_sec < -_RESTART_SEC:
            self._without_restart_sec = start_sec - jump_sec + duration_sec
            return 0.0
        self._drift_sec += jump_sec
        gap_sec = self._drift_sec
        if self._is_rough or self._uneven > _UNEVEN:
            gap_sec = min(jump_sec, gap_sec) if jump_sec > _SURE_SEC else 0.0
        if gap_sec < _TOLERANCE_SEC:
            return 0.0
        self._drift_sec -= gap_sec
        return gap_sec

    def _pauses_before(self, time_sec: float) -> float:
        while self._pauses and self._pauses[0][0] <= time_sec:
            self._paused_sec += self._pauses.popleft()[1]
        return self._paused_sec
