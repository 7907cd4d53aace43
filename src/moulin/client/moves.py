"""Streams that have lost their server, until another has taken them.

A stream is said again from its last final segment (`replay.py`), to the server with the smallest load. That is work
beyond what its servers do anyway, so only a share of the free places of each may be catching up at a time; the oldest
streams are first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Literal
from weakref import WeakKeyDictionary

from moulin.client.async_bundle import AsyncBundledStream, AsyncStreamBundle, closed_error
from moulin.client.lane import LaneStream
from moulin.client.replay import ReplayMemory
from moulin.client.server_bundles import ServerBundles
from moulin.errors import ClientError, ServerUnavailable

PATIENCE_SEC = 10.0
"""The time after which a stream ends that no server has taken."""
_SHARE = 0.25
"""The share of a server's free places that may be catching up."""
_ROUND_SEC = 0.05
_REFUSED_SEC = 0.3
"""The time after which a stream that a server has refused is tried again."""
_OPENED_AT_ONCE = 2

Outcome = Literal["moved", "elsewhere", "not_kept", "not_taken"]
"""What became of a stream: said again on another lane; begun on another server than the first; ended, because not all
was kept that would have to be said again, or because no server took it."""
Note = Callable[[Outcome, float], None]
"""Learns of each, with the time that the stream was without a lane."""


@dataclass(eq=False, slots=True)
class _Homeless:
    stream: AsyncBundledStream
    model: str
    error: ClientError
    """Why it is."""
    since: float
    not_before: float

    @property
    def is_new(self) -> bool:
        """Whether no server has had it yet: then each is tried once."""
        return self.stream.lane_stream.lost_at is None


class StreamMoves:
    """The homeless streams of a process. To be used in one event loop."""

    def __init__(
        self,
        receivers: Callable[[str], Sequence[ServerBundles]],
        memory: ReplayMemory,
        *,
        patience_sec: float = PATIENCE_SEC,
        note: Note = lambda _outcome, _seconds: None,
    ) -> None:
        """`receivers` are the servers that may take streams with a model, the preferred first."""
        self.memory = memory
        self._receivers, self._patience_sec, self._note = receivers, patience_sec, note
        self._homeless: list[_Homeless] = []
        self._refused_by: WeakKeyDictionary[AsyncBundledStream, set[AsyncStreamBundle]] = WeakKeyDictionary()
        self._catching_up: WeakKeyDictionary[AsyncStreamBundle, set[LaneStream]] = WeakKeyDictionary()
        self._opening: dict[ServerBundles, asyncio.Task[None]] = {}
        self._failed_at: WeakKeyDictionary[ServerBundles, float] = WeakKeyDictionary()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def rescue(self, model: str) -> ModelRescue:
        """The `Rescue` of streams with `model`."""
        return ModelRescue(self, model)

    def take_lost(self, model: str, stream: AsyncBundledStream, error: ClientError) -> bool:
        """See `Rescue`."""
        if self._is_closed:
            return False
        lost = stream.lane_stream
        if lost.replay is None or not lost.replay.is_whole:
            self._note("not_kept", 0.0)
            return False
        if lost.lost_at is None:
            lost.lost_at = _now()
        self._add(_Homeless(stream, model, error, lost.lost_at, 0.0))
        return True

    def take(self, model: str, stream: AsyncBundledStream, refused_by: AsyncStreamBundle, error: ClientError) -> bool:
        """See `Rescue`."""
        if self._is_closed:
            return False
        self._refused_by.setdefault(stream, set()).add(refused_by)
        lost_at = stream.lane_stream.lost_at
        self._add(_Homeless(stream, model, error, lost_at or _now(), _now() + _REFUSED_SEC if lost_at else 0.0))
        return True

    async def close(self) -> None:
        """End the streams that are homeless still."""
        self._is_closed = True
        tasks = [task for task in (self._task, *self._opening.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for homeless in self._homeless:
            homeless.stream.fail(closed_error())
        self._homeless.clear()

    def _add(self, homeless: _Homeless) -> None:
        self._homeless.append(homeless)
        self._woken.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._homeless:
            self._woken.clear()
            receivers = cache(self._receivers)  # as they are in this round
            for homeless in sorted(self._homeless, key=lambda each: each.stream.opened_at):
                servers = receivers(homeless.model)
                if homeless.stream.ended or self._place(homeless, servers) or self._gives_up(homeless, servers):
                    self._homeless.remove(homeless)
            if self._homeless:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ROUND_SEC):
                        await self._woken.wait()

    def _place(self, homeless: _Homeless, servers: Sequence[ServerBundles]) -> bool:
        """Give the stream to one of `servers`, if one may take it now."""
        if homeless.not_before > _now():
            return False
        ready = [bundle for server in servers if (bundle := server.ready(homeless.model)) is not None]
        fitting = [bundle for bundle in ready if self._may_take(bundle, homeless)]
        if not fitting:
            self._open_more([server for server in servers if server.ready(homeless.model) is None], homeless.model)
            return False
        bundle, stream = min(fitting, key=lambda bundle: bundle.load), homeless.stream
        if homeless.is_new:
            self._note("elsewhere", _now() - homeless.since)
        else:
            stream.lane_stream.say_again()
            self._catching_up.setdefault(bundle, set()).add(stream.lane_stream)
            self._note("moved", _now() - homeless.since)
        bundle.adopt(stream)
        return True

    def _may_take(self, bundle: AsyncStreamBundle, homeless: _Homeless) -> bool:
        if homeless.is_new:
            return bundle.room > 0 and bundle not in self._refused_by.get(homeless.stream, ())
        catching_up = {stream for stream in self._catching_up.pop(bundle, ()) if stream.is_catching_up}
        if catching_up:
            self._catching_up[bundle] = catching_up
        return bundle.room > 0 and len(catching_up) < max(1.0, _SHARE * bundle.room)

    def _gives_up(self, homeless: _Homeless, servers: Sequence[ServerBundles]) -> bool:
        """End the stream, if nobody is left who might take it, or has taken it for too long."""
        if homeless.is_new:
            if any(self._may_come(server, homeless) for server in servers):
                return False
            homeless.stream.fail(homeless.error)
            return True
        if _now() - homeless.since < self._patience_sec:
            return False
        self._note("not_taken", _now() - homeless.since)
        homeless.stream.fail(
            ServerUnavailable(
                f"The server of this stream is lost, and none has taken it over for {self._patience_sec:g} s: "
                f"{homeless.error.message}",
                hint="open another stream",
            )
        )
        return True

    def _may_come(self, server: ServerBundles, homeless: _Homeless) -> bool:
        """Whether a server is being asked, or may yet be, to take a new stream."""
        if server.ready(homeless.model) is not None:
            return False  # or it would have been taken
        return self._failed_at.get(server, 0.0) < homeless.since

    def _open_more(self, servers: Sequence[ServerBundles], model: str) -> None:
        """Open bundles to some of `servers`, the preferred first."""
        for server in servers:
            if len(self._opening) >= _OPENED_AT_ONCE:
                return
            if server not in self._opening and _now() - self._failed_at.get(server, 0.0) > _REFUSED_SEC:
                self._opening[server] = asyncio.create_task(self._open(server, model))

    async def _open(self, server: ServerBundles, model: str) -> None:
        with suppress(ClientError):
            await server.of(model)
        if server.ready(model) is None:  # it is lost, or draining
            self._failed_at[server] = _now()
        del self._opening[server]
        self._woken.set()


class ModelRescue:
    """The `Rescue` of streams with one model."""

    def __init__(self, moves: StreamMoves, model: str) -> None:
        self._moves, self._model, self.memory = moves, model, moves.memory

    def take(self, stream: AsyncBundledStream, refused_by: AsyncStreamBundle, error: ClientError) -> bool:
        return self._moves.take(self._model, stream, refused_by, error)

    def take_lost(self, stream: AsyncBundledStream, error: ClientError) -> bool:
        return self._moves.take_lost(self._model, stream, error)


def _now() -> float:
    return asyncio.get_running_loop().time()
