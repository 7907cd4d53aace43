"""The last minutes of a gateway: what is open goes on to its end, and nothing new begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Draining:
    """Whether the gateway drains, for all handlers. To be used in one event loop."""

    def __init__(self) -> None:
        self._has_begun = False
        self._wakers: set[Callable[[], None]] = set()

    @property
    def has_begun(self) -> bool:
        """Whether nothing new is to begin."""
        return self._has_begun

    def begin(self) -> None:
        """Begin, and wake those that wait. Idempotent."""
        self._has_begun = True
        for wake in list(self._wakers):
            wake()

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Within the context `wake` is called when draining begins."""
        self._wakers.add(wake)
        try:
            yield
        finally:
            self._wakers.discard(wake)
