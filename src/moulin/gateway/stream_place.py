"""A live session's place among the streams, which it has while audio comes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Self

from moulin.gateway.services import Services


class StreamPlace:
    """One of `max_streams`; a session may be open for an hour without it. A context manager that releases it."""

    def __init__(self, services: Services, caller: str) -> None:
        self._services, self._caller = services, caller
        self._taken: ExitStack | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def is_taken(self) -> bool:
        return self._taken is not None

    def take(self) -> None:
        """Take the place, unless it is taken. Raises ApiError at the limit."""
        if self._taken is not None:
            return
        with ExitStack() as places:
            places.enter_context(self._services.limits.stream(self._caller))
            places.enter_context(self._services.metrics.active_streams.track_inprogress())
            self._taken = places.pop_all()

    def release(self) -> None:
        """Give it back, if it is taken."""
        if self._taken is not None:
            self._taken.close()
            self._taken = None
