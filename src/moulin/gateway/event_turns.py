"""Parts of HTTP messages taken a few at a time, so that nobody who sends very many keeps the event loop from others.

A chunk of a body may hold a single byte: one read of a socket is then 40,000 events of h11's and a second of work.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import h11

EVENTS_AT_ONCE = 100


class Turns:
    """A queue of connections that have more to take; one of them goes on in each turn of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def add(self, go_on: Callable[[], None]) -> None:
        """Have `go_on` called in its turn."""
        self._waiting.append(go_on)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        go_on = self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        go_on()


class SlicedConnection(h11.Connection):
    """h11's connection, which calls for more data when it has given EVENTS_AT_ONCE events, though it may have more."""

    def __init__(self, **h11s: Any) -> None:
        super().__init__(h11.SERVER, **h11s)
        self._left = EVENTS_AT_ONCE

    def begin_slice(self) -> None:
        """Allow EVENTS_AT_ONCE events more."""
        self._left = EVENTS_AT_ONCE

    @property
    def may_have_more(self) -> bool:
        """Whether the slice was used up."""
        return self._left < 0

    def next_event(self) -> Any:
        self._left -= 1
        return h11.NEED_DATA if self._left < 0 else super().next_event()
