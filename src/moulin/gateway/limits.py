"""Limits on concurrent work, and on one caller's requests in a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moulin.gateway.api_error import RETRY_AFTER_SEC, ApiError
from moulin.gateway.connection_limit import wanted_connections
from moulin.gateway.fair_places import FairPlaces
from moulin.gateway.settings import GatewaySettings
from moulin.gateway.shared_counts import OwnTimes, SharedCounts, SharedFile, SharedTimes, Times


class Limits:
    """Counts of all workers of a gateway. Work beyond a limit is refused at once, with 429 and a time to retry.

    A caller is an API key or, without keys, an address (`Access`). An eighth more than a limit is kept for callers that
    have hardly anything under way: one caller alone can fill the limit, and not shut out the others.
    """

    def __init__(self, settings: GatewaySettings, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is the same for all processes of the machine."""
        self._settings, self._clock = settings, clock
        shared = None if settings.shared_folder is None else SharedFile(settings.shared_folder / "limits")
        self._requests = FairPlaces(settings.max_requests, SharedCounts(shared, "requests") if shared else None)
        self._streams = FairPlaces(settings.max_streams, SharedCounts(shared, "streams") if shared else None)
        self._sessions = FairPlaces(-(-wanted_connections(settings) * 3 // 4))
        self._full_at: Times = OwnTimes() if shared is None else SharedTimes(shared)
        """The time at which each caller's allowance is full again."""

    @contextmanager
    def request(self, caller: str) -> Iterator[None]:
        """Count one recording of `caller` within the context. Raises ApiError at the limit."""
        with _taken(self._requests, caller, "recordings are being transcribed"):
            yield

    @contextmanager
    def stream(self, caller: str) -> Iterator[None]:
        """Count one live stream of `caller` within the context. Raises ApiError at the limit."""
        with _taken(self._streams, caller, "live streams are open"):
            yield

    @contextmanager
    def session(self, caller: str) -> Iterator[None]:
        """Count one live session of `caller`, with audio or without, within the context. Three quarters of a process's
        connections may be sessions. Raises ApiError at the limit."""
        with _taken(self._sessions, caller, "live sessions are open"):
            yield

    def count(self, caller: str) -> None:
        """Take one from the allowance of `caller`, which is refilled evenly. Raises ApiError where it is empty.

        A minute's allowance may be used at once (a token bucket, stored as the time at which it is full again).
        """
        per_minute = self._settings.max_requests_per_minute
        if per_minute is None:
            return
        now, one_sec = self._clock(), 60.0 / per_minute
        with self._full_at.alone():
            full_at = max(self._full_at.of(caller), now)
            # At most a minute's refill may be owed; with less than one request a minute, one request's.
            wait_sec = full_at + one_sec - now - max(60.0, one_sec)
            if wait_sec <= 1e-9:
                self._full_at.put(caller, full_at + one_sec)
                return
        raise ApiError(
            429,
            f"Expected at most {per_minute:g} requests a minute, got more",
            code="rate_limit_exceeded",
            retry_after_sec=wait_sec,
        )


@contextmanager
def _taken(places: FairPlaces, caller: str, what: str) -> Iterator[None]:
    if not places.take(caller):
        message = f"{places.taken} {what}, which is the limit"
        raise ApiError(429, message, code="server_busy", hint="try again later", retry_after_sec=RETRY_AFTER_SEC)
    try:
        yield
    finally:
        places.release(caller)
