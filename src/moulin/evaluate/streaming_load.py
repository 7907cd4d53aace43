"""A load of real-time streams: N lines, each of which sends streams one after the other.

Every line sends a recording in chunks at absolute times, whether or not replies have come, and begins the next when
it ends. Lines start at a random phase, or all would send at once. A chunk's latency counts from when it was due, so
that it includes the wait for earlier chunks (a Triton sequence takes its chunks in order, one at a time) and the
lateness of the load generator.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from moulin.audio.waveform import SAMPLE_RATE
from moulin.evaluate.connection import Connection, Record, Stream
from moulin.evaluate.streaming_clips import Clip

WARMUP_SEC = 4.0

GRACE_SEC = 3.0
"""The wait for replies after the last chunk; a chunk without a reply by then has failed."""

_POLL_SEC = 0.02


@dataclass(frozen=True, slots=True)
class Pace:
    """Timing of a load: `seconds` are measured after a warm-up. `seed` decides all chance."""

    chunk_samples: int
    seconds: float
    seed: int = 0
    warmup_sec: float = WARMUP_SEC
    jitter_sec: float = 0.0
    """Largest random delay of a chunk, as over a network; no chunk overtakes another. Latencies count from the delayed
    time."""

    @property
    def chunk_sec(self) -> float:
        return self.chunk_samples / SAMPLE_RATE

    def window(self, begin: float) -> tuple[float, float]:
        """The measured interval of lines that start at `begin`."""
        first = begin + self.chunk_sec + self.warmup_sec
        return first, first + self.seconds


@dataclass(frozen=True, slots=True)
class Load:
    """The records of one run. `first_sec` and `end_sec` are the measured window, by the event loop's clock."""

    records: list[Record]
    first_sec: float
    end_sec: float
    cpu_sec: float
    """CPU seconds of this process within the window: the load generator's own cost."""
    thread_cpu_sec: float
    """CPU seconds of the event loop's thread alone: the generator's cost where a target is in the same process."""
    lateness_sec: list[float]
    """Lateness with which the generator handed over each chunk of the window."""


async def run_load(
    connection: Connection,
    clips: Sequence[Clip],
    pace: Pace,
    *,
    streams: int,
    lines: Sequence[int] | None = None,
    begin: float | None = None,
) -> Load:
    """Run `streams` lines, of which this process takes `lines` (by default all), from `begin` (by default now) on.

    Cancelling leaves no stream open.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time() if begin is None else begin
    phases = random.Random(pace.seed)
    starts = [begin + phases.uniform(0, pace.chunk_sec) for _ in range(streams)]
    first, end = pace.window(begin)
    records: list[Record] = []
    lateness: list[float] = []
    mine = [
        _Line(connection, clips, number, starts[number], pace, records, lateness)
        for number in (range(streams) if lines is None else lines)
    ]
    # A collection stops every line for longer than a chunk's handling takes; a run is short enough to do without.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for line in mine:
            line.start()
        await asyncio.sleep(first - loop.time())
        lateness.clear()
        cpu, thread_cpu = time.process_time(), time.thread_time()
        await asyncio.sleep(end - loop.time())
        cpu, thread_cpu = time.process_time() - cpu, time.thread_time() - thread_cpu
        for line in mine:
            line.hang_up()
        await replies(records, loop.time() + GRACE_SEC)
    finally:
        for line in mine:
            line.hang_up()
            line.abandon()
        if collecting:
            gc.enable()
    return Load(records, first, end, cpu, thread_cpu, lateness)


class _Line:
    """One line: recordings without a pause between them, beginning a clip later than the line before."""

    def __init__(
        self,
        connection: Connection,
        clips: Sequence[Clip],
        number: int,
        begin: float,
        pace: Pace,
        records: list[Record],
        lateness: list[float],
    ) -> None:
        self._connection, self._clips, self._next_clip = connection, clips, number
        self._records, self._lateness = records, lateness
        self._jitter_sec = pace.jitter_sec
        self._random = random.Random(f"{pace.seed}/{number}")
        self._begin, self._due, self._index = begin, begin, 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._streams: list[tuple[Record, Stream]] = []

    def start(self) -> None:
        self._timer = self._loop.call_at(self._begin, self._begin_clip)

    def hang_up(self) -> None:
        if self._timer:
            self._timer.cancel()

    def abandon(self) -> None:
        for record, stream in self._streams:
            if not record.ended:
                stream.abandon()

    def _begin_clip(self) -> None:
        self._record = Record(self._clips[self._next_clip % len(self._clips)], begin=self._begin)
        self._next_clip += 1
        self._records.append(self._record)
        self._stream = self._connection.open(self._record)
        self._streams.append((self._record, self._stream))
        self._index, self._num_samples = 0, 0
        self._schedule()

    def _schedule(self) -> None:
        """Schedule the next chunk for when its last sample has been spoken, and its jitter has passed."""
        self._num_samples += len(self._record.clip.chunks[self._index])
        spoken = self._begin + self._num_samples / SAMPLE_RATE
        self._due = max(self._due, spoken + self._random.uniform(0, self._jitter_sec))
        self._timer = self._loop.call_at(self._due, self._send)

    def _send(self) -> None:
        record, index = self._record, self._index
        self._lateness.append(self._loop.time() - self._due)
        # A failed stream is sent nothing more; the line stays silent until the recording would have ended.
        if record.failure is None:
            record.due[index] = self._due
            self._stream.send(index)
        self._index += 1
        if self._index < len(record.clip.chunks):
            self._schedule()
        else:
            self._begin += self._num_samples / SAMPLE_RATE
            self._begin_clip()


async def replies(records: list[Record], deadline: float) -> None:
    """Return when all due chunks have replies, or at the deadline."""
    loop = asyncio.get_running_loop()
    waiting = [record for record in records if _waits(record)]
    while waiting and loop.time() < deadline:
        await asyncio.sleep(_POLL_SEC)
        waiting = [record for record in waiting if _waits(record)]


def _waits(record: Record) -> bool:
    return record.failure is None and any(
        math.isnan(replied) and not math.isnan(due) and (measured or index == len(record.due) - 1)
        for index, (due, replied, measured) in enumerate(zip(record.due, record.replied, record.measured, strict=True))
    )
