"""Threads that answer requests for whole recordings one by one, as many at once as the engine has use for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from moulin.audio.waveform import SAMPLE_RATE
from moulin.errors import MoulinError
from moulin.transcript import Transcript
from moulin.triton_repo.offline_service import OfflineService, Utterance

Respond = Callable[[list[Transcript] | MoulinError], None]
"""A callback for the answer, called exactly once a request on a worker's thread. It must not raise."""


@dataclass(slots=True)
class OfflineCounters:
    """Counts since the workers were started, for metrics."""

    requests: int = 0
    seconds: float = 0.0
    """From when a worker took each request to its answer, all together."""
    audio_sec: float = 0.0


class OfflineWorkers:
    """Answers each request by itself, in the order in which they come; none waits for another to end with it."""

    def __init__(self, service: OfflineService, count: int) -> None:
        """`count` requests are under way at most."""
        self._service = service
        self._free = threading.Semaphore(count)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="moulin-request")
        self._lock = threading.Lock()
        self.counters = OfflineCounters()

    def submit(self, utterances: list[Utterance], respond: Respond) -> None:
        """Return when a worker has taken the `utterances` of a request; `respond` gets the answer."""
        self._free.acquire()
        self._pool.submit(self._work, utterances, respond)

    def close(self) -> None:
        """Answer what is under way, and stop."""
        self._pool.shutdown()

    def _work(self, utterances: list[Utterance], respond: Respond) -> None:
        begin = time.monotonic()
        try:
            answer = self._service.answer_one(utterances)
            self._count(utterances, time.monotonic() - begin)
        finally:
            self._free.release()  # before the reply, which takes a moment: the next request is there behind it
        respond(answer)

    def _count(self, utterances: list[Utterance], seconds: float) -> None:
        with self._lock:
            self.counters.requests += 1
            self.counters.seconds += seconds
            self.counters.audio_sec += sum(len(waveform) for waveform, _, _ in utterances) / SAMPLE_RATE
