"""A pool of slots for streams."""

from __future__ import annotations

import threading

from moulin.errors import StreamsFull


class SlotPool:
    """Slots 0 to `capacity` - 1. Safe to use from several threads."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # The slot freed last is given out first: its memory is warm, and that of slots never needed is never touched.
        self._free = list(range(capacity - 1, -1, -1))
        self._taken: set[int] = set()
        self._lock = threading.Lock()

    @property
    def num_taken(self) -> int:
        return len(self._taken)

    def acquire(self) -> int:
        """A free slot. Raises StreamsFull."""
        with self._lock:
            if not self._free:
                raise StreamsFull(
                    f"All {self.capacity} {StreamsFull.IN_USE}",
                    hint="try again later, or serve with more --max-streams",
                )
            slot = self._free.pop()
            self._taken.add(slot)
            return slot

    def release(self, slot: int) -> None:
        """Give a slot back. Raises KeyError where it is not taken: two streams would get it."""
        with self._lock:
            self._taken.remove(slot)
            self._free.append(slot)
