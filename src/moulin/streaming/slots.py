"""Which of a fixed number of places are taken."""

from __future__ import annotations

import threading

from moulin.errors import StreamsFull


class SlotPool:
    """Slots 0 to `capacity` - 1. Safe to use from several threads."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # The one freed last is given out first: its memory is warm, and what was never needed is never touched.
        self._free = list(range(capacity - 1, -1, -1))
        self._lock = threading.Lock()

    @property
    def num_taken(self) -> int:
        return self.capacity - len(self._free)

    def acquire(self) -> int:
        """A free slot. Raises StreamsFull."""
        with self._lock:
            if not self._free:
                raise StreamsFull(
                    f"All {self.capacity} streams are in use", hint="try again later, or serve with more --max-streams"
                )
            return self._free.pop()

    def release(self, slot: int) -> None:
        with self._lock:
            self._free.append(slot)
