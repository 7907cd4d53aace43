"""Scheduling of steps: which streams step together, and when."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from moulin.arrays import Ints
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.streaming.stream import Stream

PATIENCE_SEC = 0.03
"""The longest wait of a stream for others to step with, while other steps are under way."""

_LATENCY_SHARE = 0.2
"""Weight of the last step in the moving average of step latencies."""

_LATENCY_FORGOTTEN_SEC = 1.0
"""Time without a step after which the average counts as 0: else a service that refuses streams for its latency would
never take one again."""

LATENCIES_SEC = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12)
"""Bounds of `StepScheduler.latencies`."""

Done = Callable[[Exception | None], None]
"""A callback, called on a worker's thread when a stream has no full window left, or with the error of its step.

It must not raise: that would end the worker.
"""

SlotsDone = Callable[[Ints, Exception | None], None]
"""`Done` of streams that were submitted together, with the slots of some of them; called until it has had all."""


@dataclass(slots=True)
class _Waiting:
    """Streams that were submitted together, and have not been taken into a step since."""

    slots: Ints
    done: SlotsDone
    since: float

    def split(self, count: int) -> tuple[_Waiting, _Waiting]:
        """The first `count`, and the others."""
        return _Waiting(self.slots[:count], self.done, self.since), _Waiting(self.slots[count:], self.done, self.since)


class StepScheduler:
    """Runs the steps of many streams on `StepLimits.num_workers` threads.

    A free worker takes the streams that have waited longest, as many as one step should hold. While all other workers
    are free too, it takes them at once; beside a busy worker it waits up to `patience_sec` for half a full batch, which
    costs less than two small ones: at half the load that two CPU cores can bear, an eighth of their work is saved. A
    stream with audio for several steps goes back to the end of the queue after each, so that it does not delay others.

    Where a step costs hardly more for many streams than for one, a worker waits also while all others are free: up to
    `StepLimits.gathering_sec`, if another stream is likely to become ready within that time.
    """

    def __init__(self, recognizer: StreamRecognizer, *, patience_sec: float = PATIENCE_SEC) -> None:
        self.recognizer = recognizer
        self._patience_sec = patience_sec
        self._max_batch = recognizer.limits.max_batch
        self._half_batch = -(-self._max_batch // 2)
        self._queue: deque[_Waiting] = deque()
        self._num_queued = 0  # streams
        self._changed = threading.Condition()
        self._num_idle = recognizer.limits.num_workers
        self._closing = False
        self.num_steps = 0
        """Steps so far."""
        self.num_stepped = 0
        """Streams in all steps, each counted once a step: divided by `num_steps` the mean batch."""
        self.step_sec = 0.0
        """Seconds that all steps took together."""
        self.wait_sec = 0.0
        """Seconds that all streams waited for their steps to begin, together."""
        self.stream_sec = 0.0
        """Seconds from when each stream was ready to the end of its step, of all streams together."""
        self.latencies = [0] * (len(LATENCIES_SEC) + 1)
        """How many streams' steps, from when the stream was ready to the step's end, took at most each of LATENCIES_SEC
        and more than the one before; the last is of those that took longer."""
        self._latency_sec = 0.0
        self._last_step_end = time.monotonic()
        self._workers = [
            threading.Thread(target=self._work, name=f"moulin-step-{number}", daemon=True)
            for number in range(recognizer.limits.num_workers)
        ]
        for worker in self._workers:
            worker.start()

    def submit(self, stream: Stream, done: Done) -> None:
        """Take `stream`, which must be ready, as far as its audio goes, then call `done`.

        It must not be submitted again before that.
        """
        self.submit_slots(np.array([stream.slot]), lambda _, error: done(error))

    def submit_slots(self, slots: Ints, done: SlotsDone) -> None:
        """`submit` for the streams in `slots` [N], which need not step together; few calls for many streams."""
        with self._changed:
            self._enqueue([_Waiting(slots, done, time.monotonic())])

    def latency_sec(self) -> float:
        """The present latency of a step, from when its longest waiting stream was submitted to its end.

        A moving average over steps, or how long the first in the queue has waited where that is more; 0 when nothing
        has stepped for a while.
        """
        with self._changed:
            now = time.monotonic()
            waiting = now - self._queue[0].since if self._queue else 0.0
            all_idle = self._num_idle == len(self._workers)
            recent = not all_idle or now - self._last_step_end < _LATENCY_FORGOTTEN_SEC
            return max(waiting, self._latency_sec if recent else 0.0)

    def close(self) -> None:
        """Finish the steps under way and stop; streams still waiting stay where they are and get no `done`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def _work(self) -> None:
        while batch := self._take():
            begin = time.monotonic()
            slots = np.concatenate([waiting.slots for waiting in batch])
            error = self._step(slots)
            end = time.monotonic()
            ready = self.recognizer.are_ready(slots) if error is None else np.zeros(len(slots), np.bool_)
            unfinished, at = [], 0
            for waiting in batch:
                again = ready[at : at + len(waiting.slots)]
                at += len(again)
                if again.any():
                    unfinished.append(_Waiting(waiting.slots[again], waiting.done, end))
                if not again.all():
                    waiting.done(waiting.slots[~again], error)
            with self._changed:
                self._num_idle += 1
                self._note_times(batch, begin, end)
                self._enqueue(unfinished)

    def _enqueue(self, some: Sequence[_Waiting]) -> None:
        """Put streams at the end of the queue. The lock is held."""
        count = sum(len(waiting.slots) for waiting in some)
        self._queue.extend(some)
        self._num_queued += count
        self._changed.notify(count)

    def _note_times(self, batch: Sequence[_Waiting], begin: float, end: float) -> None:
        """Add a step's times to the sums. The lock is held, and `since` is still when each of `batch` began to wait."""
        self.step_sec += end - begin
        for waiting in batch:
            self.wait_sec += (begin - waiting.since) * len(waiting.slots)
            self.stream_sec += (end - waiting.since) * len(waiting.slots)
            self.latencies[bisect_left(LATENCIES_SEC, end - waiting.since)] += len(waiting.slots)
        self._latency_sec += _LATENCY_SHARE * (end - batch[0].since - self._latency_sec)
        self._last_step_end = end

    def _take(self) -> list[_Waiting]:
        """The next batch; empty when closing."""
        with self._changed:
            while not self._closing and (delay := self._delay()) != 0:
                self._changed.wait(delay)
            if self._closing:
                return []
            # Idle workers share the queue; a share is at least half a full batch.
            share = max(-(-self._num_queued // self._num_idle), self._half_batch)
            room = min(share, self._max_batch, self._num_queued)
            self._num_idle -= 1
            self._num_queued -= room
            self.num_steps += 1
            self.num_stepped += room
            batch = []
            while room:
                waiting = self._queue.popleft()
                if len(waiting.slots) > room:
                    waiting, rest = waiting.split(room)
                    self._queue.appendleft(rest)
                batch.append(waiting)
                room -= len(waiting.slots)
            return batch

    def _delay(self) -> float | None:
        """Seconds to wait before taking a batch; None to wait until a stream is submitted."""
        if not self._queue:
            return None
        if self._num_queued >= self._half_batch:
            return 0
        patience_sec = self._patience_sec
        if self._num_idle == len(self._workers):
            recognizer = self.recognizer
            # Each open stream outside the queue becomes ready once in `chunk_sec`: is one expected within the time?
            others = recognizer.num_open - self._num_queued
            patience_sec = recognizer.limits.gathering_sec
            if others * patience_sec < recognizer.chunk_sec:
                return 0
        return max(0, self._queue[0].since + patience_sec - time.monotonic())

    def _step(self, slots: Ints) -> Exception | None:
        """Step the streams in `slots` together. Returns the error, if any."""
        try:
            self.recognizer.step_slots(slots)
        except Exception as error:  # whatever a step makes fail must not stop the worker
            return error
        return None
