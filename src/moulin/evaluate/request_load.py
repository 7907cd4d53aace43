"""Whole recordings as requests: a closed loop of N workers, or an open one that sends whether or not replies come.

A closed loop measures how fast a system can go, but sends less to a slower system. An open loop measures the latency
for callers that do not know of each other.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from moulin.errors import OptionsError
from moulin.evaluate.connection import Connection, Record, Stream
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.streaming_load import Load, replies

WARMUP_SEC = 2.0

GRACE_SEC = 30.0
"""The wait for replies after the window; a request without a reply by then has failed."""


@dataclass(frozen=True, slots=True)
class Workers:
    """A closed loop: each of `count` sends the next recording when the last one is answered."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise OptionsError(f"Expected one worker at least, got {self.count}")


@dataclass(frozen=True, slots=True)
class Arrivals:
    """An open loop of `per_sec` requests a second, at random (a Poisson process) or evenly."""

    per_sec: float
    poisson: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.per_sec < 1e6:
            raise OptionsError(f"Expected a rate above 0 and below 1e6 requests a second, got {self.per_sec:g}")

    def gaps(self, seed: int) -> Iterator[float]:
        """Seconds from each request to the next, for ever."""
        chance = random.Random(seed)
        while True:
            yield chance.expovariate(self.per_sec) if self.poisson else 1 / self.per_sec


async def run_requests(
    connection: Connection,
    clips: Sequence[Clip],
    shape: Workers | Arrivals,
    *,
    seconds: float,
    warmup_sec: float = WARMUP_SEC,
    seed: int = 0,
    begin: float | None = None,
    grace_sec: float = GRACE_SEC,
) -> Load:
    """Requests of `clips`, in an order that `seed` shuffles, over and over, for `seconds` after the warm-up."""
    loop = asyncio.get_running_loop()
    begin = loop.time() if begin is None else begin
    first, end = begin + warmup_sec, begin + warmup_sec + seconds
    requests = _Requests(connection, itertools.cycle(random.Random(seed).sample(list(clips), len(clips))))
    collecting = gc.isenabled()
    gc.disable()
    arrivals = asyncio.create_task(_arrive(requests, shape, seed, begin))
    try:
        await asyncio.sleep(first - loop.time())
        requests.lateness_sec.clear()
        cpu, thread_cpu = time.process_time(), time.thread_time()
        await asyncio.sleep(end - loop.time())
        cpu, thread_cpu = time.process_time() - cpu, time.thread_time() - thread_cpu
        arrivals.cancel()
        requests.stop()
        await replies(requests.records, loop.time() + grace_sec)
    finally:
        arrivals.cancel()
        requests.stop()
        requests.abandon()
        if collecting:
            gc.enable()
    return Load(requests.records, first, end, cpu, thread_cpu, requests.lateness_sec)


async def run_once(
    connection: Connection, clips: Iterable[Clip], workers: int, *, on_end: Callable[[Record], None] | None = None
) -> list[Record]:
    """Send every clip once, as fast as `workers` go. Records are in the order of the clips.

    Cancelled, it leaves no stream open; `on_end` has had the records until then.
    """
    requests = _Requests(connection, iter(clips), on_end)
    try:
        for _ in range(workers):
            requests.work()
        while requests.num_open:
            await requests.progress()
    finally:
        requests.stop()
        requests.abandon()
    return requests.records


async def _arrive(requests: _Requests, shape: Workers | Arrivals, seed: int, begin: float) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(begin - loop.time())
    if isinstance(shape, Workers):
        for _ in range(shape.count):
            requests.work()
        return
    due = begin
    for gap in shape.gaps(seed):
        due += gap
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        requests.send(due)


class _Requests:
    """All requests of a run, and the callbacks for when one ends."""

    def __init__(
        self, connection: Connection, clips: Iterator[Clip], on_end: Callable[[Record], None] | None = None
    ) -> None:
        self._connection, self._clips, self._on_end = connection, clips, on_end
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._streams: list[tuple[Record, Stream]] = []
        self._stopped = False
        self.records: list[Record] = []
        self.lateness_sec: list[float] = []
        self.num_open = 0

    def work(self) -> None:
        """Send a worker's next request, and after it all further ones."""
        if not self._stopped:
            self.send(self._loop.time(), then=self.work)

    def send(self, due: float, then: Callable[[], None] | None = None) -> None:
        """Send one request (a streaming target gets all its chunks at once); `then` is called when it has ended."""
        clip = next(self._clips, None)
        if clip is None:
            return
        record = Record(clip, begin=due)
        record.on_end = lambda: self._end(record, then)
        self.records.append(record)
        self.num_open += 1
        self.lateness_sec.append(self._loop.time() - due)
        stream = self._connection.open(record)
        self._streams.append((record, stream))
        for index in range(len(clip.chunks)):
            record.due[index] = due
            if record.failure is None:
                stream.send(index)

    async def progress(self) -> None:
        """Return when a request has ended."""
        await self._ended.wait()
        self._ended.clear()

    def stop(self) -> None:
        self._stopped = True

    def abandon(self) -> None:
        """Abandon the open requests, and forget the records' callbacks, which cannot be pickled for another process."""
        for record, stream in self._streams:
            record.on_end = None
            if not record.ended:
                stream.abandon()

    def _end(self, record: Record, then: Callable[[], None] | None) -> None:
        if self._on_end:
            self._on_end(record)
        # Not at once: with a target that fails within `send`, the calls would nest deeper with every request.
        self._loop.call_soon(self._after, then)

    def _after(self, then: Callable[[], None] | None) -> None:
        """Start the next request before this one counts as ended, or `num_open` would be 0 between them."""
        if then:
            then()
        self.num_open -= 1
        self._ended.set()
