"""Places for work that are shared fairly by callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from moulin.gateway.shared_counts import Counts, OwnCounts

_KEPT_SHARE = 8
"""An eighth more places than the limit are kept for callers that have few, so that no single caller can take all."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    caller: str
    place: asyncio.Future[None]


class FairPlaces:
    """A number of places. A caller may have all of them while nobody else needs one; who has fewest is next.

    Beside them a few are kept for callers that have hardly any: these need not wait for others' work to end.
    """

    def __init__(self, places: int, counts: Counts | None = None) -> None:
        """`counts` may be shared with other processes, as long as nobody waits for a place: who waits is told of
        places of this process only."""
        self._places = places
        self._counts = counts or OwnCounts()
        self._waiting: list[_Waiting] = []

    @property
    def taken(self) -> int:
        """The number of places in use."""
        return self._counts.taken

    @property
    def full(self) -> bool:
        """Whether all places are taken, those that are kept left out."""
        return self._counts.taken >= self._places

    def resize(self, places: int) -> None:
        """Have so many places from now on. Nobody loses a place: where there are fewer, some are not given again."""
        self._places = places
        self._hand_out()

    def take(self, caller: str) -> bool:
        """Take a place for `caller` if there is one; it is to be released."""
        with self._counts.alone():
            if not self._has_place(caller):
                self._counts.forget_the_dead()
                if not self._has_place(caller):
                    return False
            self._counts.add(caller, 1)
            return True

    def release(self, caller: str) -> None:
        """Give back one of the caller's places, to whoever waits and has fewest."""
        self._counts.add(caller, -1)
        self._hand_out()

    @asynccontextmanager
    async def place(self, caller: str) -> AsyncIterator[None]:
        """Wait for a place, and have it within the context."""
        await self.wait(caller)
        try:
            yield
        finally:
            self.release(caller)

    async def wait(self, caller: str) -> None:
        """Wait for a place, which is to be released."""
        if self.take(caller):
            return
        waiting = _Waiting(caller, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            await waiting.place
        except asyncio.CancelledError:
            if waiting.place.done() and not waiting.place.cancelled():  # given a place and cancelled at once
                self.release(caller)
            else:
                self._waiting.remove(waiting)
            raise

    def _has_place(self, caller: str) -> bool:
        taken = self._counts.taken
        if taken < self._places:
            return True
        kept = -(-self._places // _KEPT_SHARE)
        few = -(-kept // 4)  # a caller with fewer places may have one of those that are kept
        return taken < self._places + kept and self._counts.held(caller) < few

    def _hand_out(self) -> None:
        # A task that was cancelled is in the list until it runs again.
        while waiting := [one for one in self._waiting if not one.place.cancelled()]:
            next_one = min(waiting, key=lambda one: self._counts.held(one.caller))  # the first of equals
            if not self.take(next_one.caller):
                return
            self._waiting.remove(next_one)
            next_one.place.set_result(None)
