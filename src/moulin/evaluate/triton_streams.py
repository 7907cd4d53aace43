"""Streams of the load generator to a Triton server: a sequence each, a request a chunk, in order, one at a time.

Generator and server share a machine, so requests are serialised before the load starts. Only the sequence's id is put
into each; HTTP takes it in the middle of its JSON, gRPC anywhere (protobuf messages concatenate).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.streaming_load import StreamRecord

_CLOSE_SEC = 2.0


@dataclass(frozen=True, slots=True)
class Request:
    """A serialised request but for the sequence's id."""

    before: bytes
    after: bytes


Done = Callable[[bytes, str | None], None]
"""Called with the body of a reply, and with the reason where it is none."""


class Wire(Protocol):
    """How requests travel."""

    def serialize(self, samples: NDArray[np.float32], *, valid: int, start: bool, end: bool) -> Request:
        """A request with `samples` [n], of which `valid` are audio."""

    def serialize_id(self, sequence_id: int) -> bytes: ...

    def request(self, message: bytes, done: Done) -> None:
        """Send `message`; return at once. What goes wrong goes to `done`, too."""

    def text(self, body: bytes) -> str:
        """The transcript in a reply."""

    async def close(self) -> None: ...


class TritonConnection:
    """A `Connection` of the load generator."""

    def __init__(self, wire: Wire, clips: Sequence[Clip]) -> None:
        self._wire = wire
        self._requests = {id(clip): list(_requests(wire, clip)) for clip in clips}
        self._ids = itertools.count(1)
        self._ending: list[TritonStream] = []
        # Triton takes no tensor without elements, so that the end by itself needs a sample that is none.
        self._end = wire.serialize(np.zeros(1, dtype=np.float32), valid=0, start=False, end=True)

    def open(self, record: StreamRecord) -> TritonStream:
        requests = [*self._requests[id(record.clip)], self._end]
        return TritonStream(self._wire, record, requests, next(self._ids), self._ending)

    async def close(self) -> None:
        """Wait for the sequences that were abandoned to end, so that they take no place in the server, and close."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _CLOSE_SEC
        while any(stream.busy for stream in self._ending) and loop.time() < deadline:
            await asyncio.sleep(0.02)
        await self._wire.close()


class TritonStream:
    """One sequence."""

    def __init__(
        self, wire: Wire, record: StreamRecord, requests: Sequence[Request], number: int, ending: list[TritonStream]
    ) -> None:
        self._wire, self._record, self._requests, self._ending = wire, record, requests, ending
        self._id = wire.serialize_id(number)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[int] = deque()
        self._under_way: int | None = None
        self._started = False

    @property
    def busy(self) -> bool:
        return self._under_way is not None

    def send(self, index: int) -> None:
        self._waiting.append(index)
        if self._under_way is None:
            self._next()

    def abandon(self) -> None:
        self._waiting.clear()
        if self._started:
            self._ending.append(self)
            self.send(len(self._requests) - 1)

    def _next(self) -> None:
        index = self._waiting.popleft()
        self._under_way, self._started = index, True
        if index < len(self._record.sent):
            self._record.sent[index] = self._loop.time()
        request = self._requests[index]
        self._wire.request(b"".join((request.before, self._id, request.after)), self._done)

    def _done(self, body: bytes, failure: str | None) -> None:
        now, index = self._loop.time(), self._under_way
        assert index is not None
        self._under_way = None
        record, last = self._record, len(self._record.replied) - 1
        if index > last:
            return
        if failure is not None:
            record.failure = failure
            return
        record.replied[index] = now
        if index == last:
            record.text = self._wire.text(body)
        elif self._waiting:
            self._next()


def _requests(wire: Wire, clip: Clip) -> Iterator[Request]:
    last = len(clip.chunks) - 1
    for index, chunk in enumerate(clip.chunks):
        yield wire.serialize(chunk, valid=len(chunk), start=index == 0, end=index == last)
