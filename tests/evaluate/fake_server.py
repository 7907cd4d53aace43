"""Targets in memory, for the load generator: replies come when a test says so."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import numpy as np

from moulin.evaluate.connection import Record
from moulin.evaluate.streaming_clips import Clip

CHUNK_SEC = 0.32
CHUNK_SAMPLES = 5120


def clip(num_chunks: int, *, text: str = "ONE", last_samples: int = CHUNK_SAMPLES) -> Clip:
    """`num_chunks` chunks, of which all but the first and the last are measured."""
    lengths = [CHUNK_SAMPLES] * (num_chunks - 1) + [last_samples]
    measured = [0 < index < num_chunks - 1 for index in range(num_chunks)]
    return Clip(
        text=text,
        chunks=tuple(np.zeros(length, dtype=np.float32) for length in lengths),
        tail=np.zeros(0, dtype=np.float32),
        peer_steps=tuple(range(num_chunks)),
        measured=tuple(measured),
    )


class FakeServer:
    """Answers a chunk `delay` seconds (or what it says for a time) after it was sent; in order, the next goes then."""

    def __init__(
        self,
        delay: float | Callable[[float], float],
        *,
        in_order: bool = False,
        fail_at: int | None = None,
        never_answer: int | None = None,
    ) -> None:
        self._delay, self.in_order, self.fail_at, self.never_answer = delay, in_order, fail_at, never_answer
        self.streams: list[FakeStream] = []
        self.num_requests = 0
        self.closed = False

    def delay(self, now: float) -> float:
        return self._delay(now) if callable(self._delay) else self._delay

    def open(self, record: Record) -> FakeStream:
        self.streams.append(FakeStream(self, record))
        return self.streams[-1]

    async def close(self) -> None:
        self.closed = True


class FakeStream:
    def __init__(self, server: FakeServer, record: Record) -> None:
        self._server, self._record = server, record
        self._loop = asyncio.get_running_loop()
        self.opened = self._loop.time()
        self.received: list[int] = []
        self.abandoned = False
        self._waiting: deque[int] = deque()
        self._busy = False

    def send(self, index: int) -> None:
        self._waiting.append(index)
        if not (self._server.in_order and self._busy):
            self._deliver()

    def abandon(self) -> None:
        self.abandoned = True

    def _deliver(self) -> None:
        index, now = self._waiting.popleft(), self._loop.time()
        self._record.sent[index] = now
        self._server.num_requests += 1
        self.received.append(index)
        self._busy = True
        if index != self._server.never_answer:
            self._loop.call_later(self._server.delay(now), self._reply, index)

    def _reply(self, index: int) -> None:
        self._busy = False
        if index == self._server.fail_at:
            self._record.fail("no more room")
            return
        self._record.replied[index] = self._loop.time()
        if index == len(self._record.replied) - 1:
            self._record.finish(self._record.clip.text)
        elif self._waiting and self._server.in_order:
            self._deliver()
