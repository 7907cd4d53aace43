"""Scheduling of steps: which streams step together, and when."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.streaming.stream import Stream

PATIENCE_SEC = 0.03
"""The longest wait of a stream for others to step with, while other steps are under way."""

_LATENCY_SHARE = 0.2
"""Weight of the last step in the moving average of step latencies."""

_LATENCY_FORGOTTEN_SEC = 1.0
"""Time without a step after which the average counts as 0: else a service that refuses streams for its latency would
never take one again."""

Done = Callable[[Exception | None], None]
"""A callback, called on a worker's thread when a stream has no full window left, or with the error of its step.

It must not raise: that would end the worker.
"""


@dataclass(slots=True)
class _Waiting:
    stream: Stream
    done: Done
    since: float


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
        self._recognizer = recognizer
        self._patience_sec = patience_sec
        self._max_batch = recognizer.limits.max_batch
        self._half_batch = -(-self._max_batch // 2)
        self._queue: deque[_Waiting] = deque()
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
        with self._changed:
            self._queue.append(_Waiting(stream, done, time.monotonic()))
            self._changed.notify()

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
            error = self._step([waiting.stream for waiting in batch])
            end = time.monotonic()
            unfinished = []
            for waiting in batch:
                if error is None and self._recognizer.is_ready(waiting.stream):
                    unfinished.append(waiting)
                else:
                    waiting.done(error)
            with self._changed:
                self._num_idle += 1
                self._note_times(batch, begin, end)
                now = time.monotonic()
                for waiting in unfinished:
                    waiting.since = now
                self._queue.extend(unfinished)
                self._changed.notify(len(unfinished))

    def _note_times(self, batch: Sequence[_Waiting], begin: float, end: float) -> None:
        """Add a step's times to the sums. The lock is held, and `since` is still when each of `batch` began to wait."""
        self.step_sec += end - begin
        self.wait_sec += begin * len(batch) - sum(waiting.since for waiting in batch)
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
            share = max(-(-len(self._queue) // self._num_idle), self._half_batch)
            batch = [self._queue.popleft() for _ in range(min(share, self._max_batch, len(self._queue)))]
            self._num_idle -= 1
            self.num_steps += 1
            self.num_stepped += len(batch)
            return batch

    def _delay(self) -> float | None:
        """Seconds to wait before taking a batch; None to wait until a stream is submitted."""
        if not self._queue:
            return None
        if len(self._queue) >= self._half_batch:
            return 0
        patience_sec = self._patience_sec
        if self._num_idle == len(self._workers):
            recognizer = self._recognizer
            # Each open stream outside the queue becomes ready once in `chunk_sec`: is one expected within the time?
            others = recognizer.num_open - len(self._queue)
            patience_sec = recognizer.limits.gathering_sec
            if others * patience_sec < recognizer.chunk_sec:
                return 0
        return max(0, self._queue[0].since + patience_sec - time.monotonic())

    def _step(self, streams: Sequence[Stream]) -> Exception | None:
        """Step `streams` together. Returns the error, if any."""
        try:
            self._recognizer.step(streams)
        except Exception as error:  # whatever a step makes fail must not stop the worker
            return error
        return None
