"""A count in the name of a thread, which another process reads in /proc (`vital_signs.py`).

It needs no file, socket or descriptor, and goes through Triton, which starts the processes of its models itself.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from moulin.launch.vital_signs import BEAT

EVERY_SEC = 1.0


class Heartbeat:
    """A thread that does nothing but carry the count: once a second by itself, or with each `beat`."""

    def __init__(self, *, by_itself: bool = True) -> None:
        self._by_itself = by_itself
        self._count = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="moulin-heartbeat", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        self._count = (self._count + 1) % 1000
        # Where /proc is not as Linux has it nobody reads it either.
        with contextlib.suppress(OSError):
            Path(f"/proc/self/task/{self._thread.native_id}/comm").write_text(f"{BEAT}{self._count:03}")

    def close(self) -> None:
        """Stop; a missing count is no sign of anything."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(EVERY_SEC if self._by_itself else None):
            self.beat()
