"""Microphones by the dozen: streams paced in real time, one after the other on each of N lines.

Every line speaks a recording in chunks at absolute times, whether or not replies have come, and begins the next when
it ends. Lines start at a random phase, or all would send at once. A chunk's latency counts from when it was due:
a server that holds up what comes next (a Triton sequence takes its chunks in order, one at a time) pays for the wait,
and a late load generator shows too.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from moulin.audio.waveform import SAMPLE_RATE
from moulin.evaluate.streaming_clips import Clip

GRACE_SEC = 3.0
"""How long replies are waited for after the last chunk; what has not come by then is a failure."""

_POLL_SEC = 0.02


@dataclass(slots=True)
class StreamRecord:
    """What became of one stream: seconds of the event loop's clock for each chunk, NaN where it has not happened."""

    clip: Clip
    due: list[float] = field(init=False)
    sent: list[float] = field(init=False)
    replied: list[float] = field(init=False)
    text: str | None = None
    """Of the whole stream, once it has ended well."""
    failure: str | None = None

    def __post_init__(self) -> None:
        self.due, self.sent, self.replied = ([math.nan] * len(self.clip.chunks) for _ in range(3))


class Stream(Protocol):
    """One stream of a target. What happens goes into the record that it was opened with."""

    def send(self, index: int) -> None:
        """Send the clip's chunk `index`, behind those before it; return at once. The last one ends the stream."""

    def abandon(self) -> None:
        """Free the server's side, if the stream has not ended."""


class Connection(Protocol):
    """A target that is running, for one event loop."""

    def open(self, record: StreamRecord) -> Stream:
        """Open a stream for `record.clip`; return at once, connected or not."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Load:
    """What one run did. `first_sec` and `end_sec` are the measured window, by the event loop's clock."""

    records: list[StreamRecord]
    first_sec: float
    end_sec: float
    cpu_sec: float
    """CPU seconds of this process within the window: the load generator's own cost."""
    lateness_sec: list[float]
    """How late each chunk of the window was handed over, by the generator's own fault."""


async def run_load(
    connection: Connection,
    clips: Sequence[Clip],
    *,
    streams: int,
    seconds: float,
    warmup_sec: float,
    chunk_sec: float,
    seed: int = 0,
    window_opened: asyncio.Event | None = None,
    window_closed: asyncio.Event | None = None,
) -> Load:
    """`streams` lines for `warmup_sec`, which are not measured, and `seconds`, which are.

    The events tell others when the window begins and ends. Cancelling leaves no stream open.
    """
    loop = asyncio.get_running_loop()
    phases = random.Random(seed)
    records: list[StreamRecord] = []
    lateness: list[float] = []
    now = loop.time()
    lines = [
        _Line(connection, clips, number, now + phases.uniform(0, chunk_sec), records, lateness)
        for number in range(streams)
    ]
    # A collection stops every line for longer than a chunk's handling takes; a run is short enough to do without.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for line in lines:
            line.start()
        first = now + chunk_sec + warmup_sec
        await asyncio.sleep(first - loop.time())
        if window_opened:
            window_opened.set()
        lateness.clear()
        cpu = time.process_time()
        await asyncio.sleep(first + seconds - loop.time())
        cpu = time.process_time() - cpu
        if window_closed:
            window_closed.set()
        for line in lines:
            line.hang_up()
        await _replies(records, loop.time() + GRACE_SEC)
    finally:
        for line in lines:
            line.hang_up()
            line.abandon()
        if collecting:
            gc.enable()
    return Load(records, first, first + seconds, cpu, lateness)


class _Line:
    """One microphone: recordings without a pause between them, from the clip after the last line's on."""

    def __init__(
        self,
        connection: Connection,
        clips: Sequence[Clip],
        number: int,
        begin: float,
        records: list[StreamRecord],
        lateness: list[float],
    ) -> None:
        self._connection, self._clips, self._next_clip = connection, clips, number
        self._records, self._lateness = records, lateness
        self._begin, self._due, self._index = begin, begin, 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._streams: list[tuple[StreamRecord, Stream]] = []

    def start(self) -> None:
        self._timer = self._loop.call_at(self._begin, self._begin_clip)

    def hang_up(self) -> None:
        if self._timer:
            self._timer.cancel()

    def abandon(self) -> None:
        for record, stream in self._streams:
            if record.text is None and record.failure is None:
                stream.abandon()

    def _begin_clip(self) -> None:
        self._record = StreamRecord(self._clips[self._next_clip % len(self._clips)])
        self._next_clip += 1
        self._records.append(self._record)
        self._stream = self._connection.open(self._record)
        self._streams.append((self._record, self._stream))
        self._index, self._num_samples = 0, 0
        self._schedule()

    def _schedule(self) -> None:
        """The chunk is due when its last sample has been spoken."""
        self._num_samples += len(self._record.clip.chunks[self._index])
        self._due = self._begin + self._num_samples / SAMPLE_RATE
        self._timer = self._loop.call_at(self._due, self._send)

    def _send(self) -> None:
        record, index = self._record, self._index
        self._lateness.append(self._loop.time() - self._due)
        # What has failed is not sent to any more; the line stays silent until the recording would have ended.
        if record.failure is None:
            record.due[index] = self._due
            self._stream.send(index)
        self._index += 1
        if self._index < len(record.clip.chunks):
            self._schedule()
        else:
            self._begin = self._due
            self._begin_clip()


async def _replies(records: list[StreamRecord], deadline: float) -> None:
    """Return when nothing that was due is without a reply, or at the deadline."""
    loop = asyncio.get_running_loop()
    waiting = [record for record in records if _waits(record)]
    while waiting and loop.time() < deadline:
        await asyncio.sleep(_POLL_SEC)
        waiting = [record for record in waiting if _waits(record)]


def _waits(record: StreamRecord) -> bool:
    return record.failure is None and any(
        math.isnan(replied) and not math.isnan(due) and (measured or index == len(record.due) - 1)
        for index, (due, replied, measured) in enumerate(
            zip(record.due, record.replied, record.clip.measured, strict=True)
        )
    )
