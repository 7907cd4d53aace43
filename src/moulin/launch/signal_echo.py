"""SIGTERM that is sent twice at once: `timeout`, and others that end a process and its group, send it to both."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

ECHO_SEC = 0.1
"""The time between the two on a busy machine; whoever wants it to end at once takes longer."""


class SignalEcho:
    """Tells a second SIGTERM that is meant from the echo of the first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard_at: float | None = None

    def is_echo(self, number: int) -> bool:
        """Whether the signal that has come now is SIGTERM right behind another one."""
        if number != signal.SIGTERM:
            return False
        now, before = self._clock(), self._heard_at
        self._heard_at = now
        return before is not None and now - before < ECHO_SEC
