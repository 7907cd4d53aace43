"""The messages of a WebSocket that have been read and not taken yet, in bounds that all connections share.

Reading goes on while a message is worked on, so that a ping, a close or the end of a connection is seen at once. What
one client sends faster than it is worked on is kept up to `MOST_AHEAD_BYTES`, and of all together up to
`ALL_AHEAD_BYTES`, but for `FREE_AHEAD_BYTES` of each; then it is read no further, and TCP slows the client down.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveEvent

FREE_AHEAD_BYTES = 64 << 10
MOST_AHEAD_BYTES = 32 << 20
ALL_AHEAD_BYTES = 256 << 20

_MESSAGE_BYTES = 400
"""The memory of a message besides its content."""

_TAKEN_AT_ONCE = 16
"""Messages in one turn of the event loop: some cost their reader no wait, and of the smallest 80,000 may be here."""


class ReadAhead:
    """The bytes that all connections have read ahead."""

    def __init__(self, limit: int = ALL_AHEAD_BYTES) -> None:
        self.limit, self.used = limit, 0


class ReceivedMessages:
    """A queue of ASGI messages for one reader, in place of the `asyncio.Queue` of uvicorn's protocol.

    One timer serves all waits: a wait only says until when, and the timer, when it goes off too early, is set again.
    """

    def __init__(self, ahead: ReadAhead, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """`pause` and `resume` reading, each called once and in turn."""
        self._loop = asyncio.get_running_loop()
        self._all, self._pause, self._resume = ahead, pause, resume
        self._messages: deque[tuple[ASGIReceiveEvent, int]] = deque()
        self._bytes = 0
        self._num_taken = 0
        self.is_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def put_nowait(self, message: ASGIReceiveEvent, num_bytes: int = 0) -> None:
        """Add a message with so many bytes of content."""
        num_bytes += _MESSAGE_BYTES
        self._messages.append((message, num_bytes))
        self._bytes += num_bytes
        self._all.used += num_bytes
        if self._bytes > FREE_AHEAD_BYTES and not self.is_paused and self._is_too_far:
            self.is_paused = True
            self._pause()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self, timeout_sec: float | None = None) -> ASGIReceiveEvent | None:
        """The next message, or None after that time without one."""
        self._num_taken += 1
        if self._messages and self._num_taken % _TAKEN_AT_ONCE == 0:
            await asyncio.sleep(0)  # the turn of others
        if not self._messages:
            await self._wait(timeout_sec)
            if not self._messages:
                return None
        message, num_bytes = self._messages.popleft()
        self._count_off(num_bytes)
        return message

    def drop(self) -> None:
        """Forget the messages, which nobody will take."""
        self._messages.clear()
        self._count_off(self._bytes)

    def close(self) -> None:
        """Forget everything, as the reader has ended."""
        self.drop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _is_too_far(self) -> bool:
        return self._bytes > MOST_AHEAD_BYTES or self._all.used > self._all.limit

    def _count_off(self, num_bytes: int) -> None:
        self._bytes -= num_bytes
        self._all.used -= num_bytes
        if self.is_paused and (self._bytes <= FREE_AHEAD_BYTES or not self._is_too_far):
            self.is_paused = False
            self._resume()

    async def _wait(self, timeout_sec: float | None) -> None:
        self._until = float("inf") if timeout_sec is None else self._loop.time() + timeout_sec
        if self._timer is None or self._timer.when() > self._until:
            self._set_timer()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        is_finite = self._until < float("inf")
        self._timer = self._loop.call_at(self._until, self._go_off) if is_finite else None

    def _go_off(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return  # the next wait sets it
        if self._until > self._loop.time():
            self._set_timer()
        else:
            self._waiter.set_result(None)
